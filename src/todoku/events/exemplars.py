"""Which observations of a histogram have their trace as exemplar."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from math import inf
from time import monotonic
from typing import Final

from todoku.events.event import exemplar_of

SECONDS: Final = 1.0


class Exemplars:
    """Choose one observation a second of each bucket of a histogram; `bounds` are those of its buckets. A
    histogram with labels needs one of these for each of its children.

    Prometheus reads only the last one of a bucket, every few seconds, and prometheus_client takes much longer
    to check an exemplar than to count an observation.
    """

    def __init__(self, bounds: Sequence[float], clock: Callable[[], float] = monotonic) -> None:
        self._bounds, self._clock = bounds, clock
        self.clear()

    def clear(self) -> None:
        """Let the next observation of each bucket have an exemplar."""
        self._next = [-inf] * (len(self._bounds) + 1)

    def of(self, traceparent: str | None, value: float) -> dict[str, str] | None:
        """Return the exemplar of an observation, None if it is to have none."""
        if traceparent is None:
            return None
        bucket, now = bisect_left(self._bounds, value), self._clock()
        if now < self._next[bucket]:
            return None
        exemplar = exemplar_of(traceparent)
        if exemplar is not None:
            self._next[bucket] = now + SECONDS
        return exemplar

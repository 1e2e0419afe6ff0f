"""The clock of a process: the wall clock, without small steps back, and what its corrections were."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import msgspec
import structlog

log = structlog.get_logger(__name__)

SLEWED_SECONDS_MAX = 2.5
"""A wall clock that is set back by up to this is approached at half speed, so within 5 seconds. One that
is set back further is followed at once."""

CORRECTION_SECONDS_MIN = 1.0
"""What the wall clock and the boot-time clock must differ by, from one reading to the next, to count as
a correction. Drift and the slews of a time service stay below it."""


class Correction(msgspec.Struct, frozen=True):
    """The wall clock was set from `before` to `after`."""

    before: datetime
    after: datetime


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """Return the current time in UTC."""

    def correction(self) -> Correction | None:
        """Return the last correction that `now` has followed."""


def boottime() -> float:
    """Return the seconds since the machine started, those in which it was suspended included."""
    return time.clock_gettime(_BOOTTIME)


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SteadyClock:
    """The wall clock; small steps back are slewed, large steps are followed at once and noted.

    Call it on one thread. `wall` and `boottime` return seconds.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] = boottime,
    ) -> None:
        self._read_wall = wall
        self._read_boottime = boottime
        self._wall = self._now = wall()
        self._boottime = boottime()
        self._correction: Correction | None = None

    def now(self) -> datetime:
        """Return the current time in UTC, earlier than before only if the wall clock was set back by
        more than `SLEWED_SECONDS_MAX`."""
        wall, boottime = self._read_wall(), self._read_boottime()
        elapsed = max(0.0, boottime - self._boottime)
        if abs(wall - self._wall - elapsed) > CORRECTION_SECONDS_MIN:
            self._note_correction(self._wall + elapsed, wall)
        slowest = self._now + elapsed / 2
        self._now = slowest if 0 < slowest - wall <= SLEWED_SECONDS_MAX else wall
        self._wall, self._boottime = wall, boottime
        return _instant(self._now)

    def correction(self) -> Correction | None:
        """Return the last correction that `now` has followed."""
        return self._correction

    def _note_correction(self, before: float, after: float) -> None:
        self._correction = Correction(_instant(before), _instant(after))
        log.warning("wall_clock_corrected", seconds=round(after - before, 3))


def _instant(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)


_EPOCH = datetime.fromtimestamp(0, UTC)

"""Spans of requests that are being answered: the parents of what their commands lead to."""

from collections.abc import Callable, Iterable
from typing import Any

from todoku.telemetry.store import SpanStore


class OpenSpans:
    """The spans of requests that change something, by the traceparent of their commands.

    Before a command is committed, its request's span is written as it would be if the process ended now.
    """

    def __init__(self, store: SpanStore) -> None:
        self._store = store
        self._open: dict[str, Callable[[], bytes]] = {}

    def begin(self, traceparent: str, unfinished: Callable[[], bytes]) -> None:
        """Note a span that has begun; `unfinished` encodes it as it would be if the process ended now."""
        self._open[traceparent] = unfinished

    def unfinished(self, traceparents: Iterable[str]) -> list[bytes]:
        """Return the spans of these that are not written yet."""
        found: list[Any] = [self._open.pop(traceparent, None) for traceparent in traceparents]
        return [encode() for encode in found if encode is not None]

    def end(self, traceparent: str, span_id: bytes, span: bytes) -> None:
        """Keep a span that has ended."""
        self._open.pop(traceparent, None)
        self._store.finished(span_id, span)

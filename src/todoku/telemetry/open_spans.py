"""Spans of requests that are being answered: the parents of what their commands lead to."""

from collections.abc import Callable, Iterable

from todoku.telemetry.store import SpanStore


class OpenSpans:
    """The spans of requests that change something, by the traceparent of their commands.

    Before a command is committed, its request's span is written as it would be if the process ended now.
    """

    def __init__(self, store: SpanStore) -> None:
        self._store = store
        self._open: dict[str, tuple[bytes, Callable[[], bytes]]] = {}

    def begin(self, traceparent: str, span_id: bytes, unfinished: Callable[[], bytes]) -> None:
        """Note a span that has begun; `unfinished` encodes it as it would be if the process ended now."""
        self._open[traceparent] = span_id, unfinished

    def unfinished(self, traceparents: Iterable[str]) -> list[tuple[bytes, bytes]]:
        """Return the spans of these that are not written yet, each with its id."""
        found = [self._open.pop(each) for each in traceparents if each in self._open]
        return [(span_id, encode()) for span_id, encode in found]

    def end(self, traceparent: str, span_id: bytes, span: bytes) -> None:
        """Keep a span that has ended."""
        self._open.pop(traceparent, None)
        self._store.finished(span_id, span)

"""Spans of requests that are being answered: the parents of what their commands lead to."""

from collections.abc import Iterable
from time import time_ns
from typing import Protocol

from todoku.telemetry import encoding
from todoku.telemetry.store import SpanStore


class OpenSpan(Protocol):
    """The span of a request that is being answered."""

    traceparent: str

    def encode_unfinished(self, ended: bytes) -> bytes:
        """Return the span as it would be if it `ended` now without an answer, with the tag `UNFINISHED`."""


class OpenSpans:
    """The spans of requests that change something, by the traceparent of their commands.

    Before a command is committed, its request's span is written as it would be if the process ended now.
    """

    def __init__(self, store: SpanStore) -> None:
        self._store = store
        self._open: dict[str, OpenSpan] = {}

    def begin(self, span: OpenSpan) -> None:
        """Note a span that has begun."""
        self._open[span.traceparent] = span

    def unfinished(self, traceparents: Iterable[str]) -> dict[str, bytes]:
        """Return the spans of these that are not written yet, by their traceparents."""
        if not (spans := self._open):
            return {}
        ended = encoding.ended(time_ns())
        return {
            each: span.encode_unfinished(ended)
            for each in traceparents
            if (span := spans.pop(each, None)) is not None
        }

    def end(self, span: OpenSpan, encoded: bytes) -> None:
        """Keep a span that has ended."""
        if self._open.pop(span.traceparent, None) is None:
            self._store.finished(span.traceparent, encoded)
        else:
            self._store.add(encoded)

"""Spans of HTTP requests, after OpenTelemetry's HTTP conventions."""

from binascii import unhexlify
from collections.abc import Awaitable, Iterable
from struct import Struct
from time import time_ns
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.telemetry import encoding
from todoku.telemetry.encoding import BEGAN, ENDED, PARENT_ID, SPAN_ID, TRACE_ID, pack_time
from todoku.telemetry.open_spans import OpenSpans
from todoku.telemetry.parents import is_sampled, new_root
from todoku.telemetry.tracer import ServiceTracer
from todoku.web.call import TRACED, header_values, read_traceparent
from todoku.web.metrics import METHODS
from todoku.web.middleware import REQUEST_SPAN, STATUS, route_of
from todoku.web.prefix import PREFIX

UNTRACED: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Requests that monitoring repeats for ever."""

UNCHANGING: Final = frozenset({"GET", "HEAD"})
"""The methods that lead to no command."""

TRACE_HEADERS: Final = frozenset({b"traceparent", b"tracestate"})
LOCATION: Final = b"location"


class TraceMiddleware:
    """Begin a span of each request, within the trace that the client names, if any; `MetricsMiddleware` ends
    it. Its traceparent is in the scope."""

    def __init__(self, app: ASGIApp, tracer: ServiceTracer) -> None:
        self._app, self._tracer = app, tracer
        self._layouts: dict[_Key, _Layout] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"] not in UNTRACED:
            self._begin(scope)
        return self._app(scope, receive, send)

    def _begin(self, scope: Scope) -> None:
        parent = None
        for name, _ in scope["headers"]:
            if name in TRACE_HEADERS:
                parent = _parent_of(scope)
                break
        traceparent = new_root()
        if parent is None:
            sampled = self._tracer.sample(traceparent[3:35])
        else:
            traceparent, sampled = parent[:36] + traceparent[36:], is_sampled(parent)
        if not sampled:
            traceparent = traceparent[:53] + "00"
        scope[TRACED] = traceparent
        if sampled:
            scope[REQUEST_SPAN] = span = _RequestSpan(
                self._tracer.open, self._layouts, scope, traceparent, parent
            )
            if scope["method"] not in UNCHANGING:
                self._tracer.open.begin(span)


def _parent_of(scope: Scope) -> str | None:
    """Return the traceparent that a client sends; without a valid one, its tracestate does not count."""
    parent = read_traceparent(header_values(scope, b"traceparent") or [b""])
    if parent is None:
        scope["headers"] = [each for each in scope["headers"] if each[0] not in TRACE_HEADERS]
    return parent


class _RequestSpan:
    """The span of one request: a `RequestSpan` of the web, and an `OpenSpan`."""

    __slots__ = (
        *("_began", "_layout", "_layouts", "_location", "_open", "_parent", "_path", "_scope"),
        *("_start", "traceparent"),
    )

    def __init__(
        self,
        spans: OpenSpans,
        layouts: "dict[_Key, _Layout]",
        scope: Scope,
        traceparent: str,
        parent: str | None,
    ) -> None:
        self._began = time_ns()
        self.traceparent = traceparent
        self._open, self._layouts, self._scope, self._parent = spans, layouts, scope, parent
        self._path, self._location = scope["path"], b""
        self._layout: _Layout | None = None

    def respond(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the headers of the response."""
        for name, value in headers:
            if name == LOCATION:
                prefix = self._scope.get(PREFIX)
                self._location = value if prefix is None else prefix.encode() + value

    def end(self) -> None:
        """End the span, with the status that the scope has."""
        layout = self._layout or self._encode_start()
        location = self._location
        ended = pack_time(ENDED, time_ns())
        head, before_location = layout.until(self._scope[STATUS], len(location))
        self._open.end(self, b"".join((head, self._start, ended, before_location, location)))

    def encode_unfinished(self, ended: bytes) -> bytes:
        """Return the span as it would be if it `ended` now without an answer, with the tag `UNFINISHED`."""
        head, rest = (self._layout or self._encode_start()).unfinished
        return b"".join((head, self._start, ended, rest))

    def _encode_start(self) -> "_Layout":
        """Encode once what does not change until the end; return how the rest is encoded."""
        scope, traceparent, path = self._scope, self.traceparent, self._path.encode()
        key = (
            scope["method"],
            scope.get("scheme", "http"),
            route_of(scope),
            self._parent is not None,
            len(path),
        )
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= encoding.LAYOUTS_MAX:
                self._layouts.clear()  # The lengths of paths are up to the clients.
            layout = self._layouts[key] = _Layout(*key)
        self._layout = layout
        parent = b"" if self._parent is None else PARENT_ID + unhexlify(self._parent[36:52])
        self._start = layout.pack_start(
            TRACE_ID,
            unhexlify(traceparent[3:35]),
            SPAN_ID,
            unhexlify(traceparent[36:52]),
            BEGAN,
            self._began,
            parent,
            layout.before_path,
            path,
        )
        return layout


_Key = tuple[str, str, str, bool, int]
"""Method, scheme, route, whether there is a parent, and the length of the path."""


class _Layout:
    """How the spans of all requests of a kind are encoded.

    `pack_start` encodes what does not change until the end, `before_path` is what goes before the path.
    `unfinished` is what goes before and after the start and the end's time of a span that has no answer.
    """

    __slots__ = ("_ends", "_key", "_length", "before_path", "pack_start", "unfinished")

    def __init__(
        self, method: str, scheme: str, route: str, has_parent: bool, path_length: int
    ) -> None:
        self._key = method if method in METHODS else "_OTHER", scheme, route, has_parent
        self.before_path = encoding.head_of_text("url.path", path_length)
        start = Struct(f"<2s16s2s8sBQ{10 * has_parent}s{len(self.before_path)}s{path_length}s")
        self.pack_start, self._length = start.pack, start.size + encoding.TIME_LENGTH
        self._ends: dict[tuple[int, int], tuple[bytes, bytes]] = {}
        rest = _shape(*self._key, 0)
        self.unfinished = encoding.head(self._length + len(rest), encoding.UNFINISHED), rest

    def until(self, status: int, location_length: int) -> tuple[bytes, bytes]:
        """Return what goes before the start of a span that has ended, and before its Location."""
        key = status, location_length
        if (found := self._ends.get(key)) is None:
            rest = _shape(*self._key, status)
            if location_length:
                rest += encoding.head_of_list("http.response.header.location", location_length)
            head = encoding.head(self._length + len(rest) + location_length)
            found = self._ends[key] = head, rest
        return found


def _shape(method: str, scheme: str, route: str, has_parent: bool, status: int) -> bytes:
    attributes: dict[str, encoding.Value] = {
        "http.request.method": method,
        "url.scheme": scheme,
        **({"http.route": route} if route else {}),
        **({"http.response.status_code": status} if status else {}),
    }
    name = "HTTP" if method == "_OTHER" else method
    flags = encoding.SAMPLED_REMOTE if has_parent else encoding.SAMPLED
    shape = encoding.shape(
        f"{name} {route}" if route else name, encoding.SERVER, attributes, flags=flags
    )
    if status >= 500:
        shape += encoding.failure(str(status), "")
    elif not status:
        shape += encoding.failure("unanswered", "The request was not answered.")
    return shape

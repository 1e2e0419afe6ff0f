"""Spans of HTTP requests, after OpenTelemetry's HTTP conventions."""

from binascii import unhexlify
from collections.abc import Awaitable, Iterable
from time import time_ns
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.telemetry import encoding
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
        self._layouts: dict[_Key, tuple[bytes, bytes]] = {}

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
        *("_began", "_layouts", "_location", "_open", "_parent", "_path", "_scope", "_start"),
        "traceparent",
    )

    def __init__(
        self,
        spans: OpenSpans,
        layouts: "dict[_Key, tuple[bytes, bytes]]",
        scope: Scope,
        traceparent: str,
        parent: str | None,
    ) -> None:
        self.traceparent = traceparent
        self._open, self._layouts, self._scope, self._parent = spans, layouts, scope, parent
        self._path, self._location, self._start = scope["path"], b"", b""
        self._began = time_ns()

    def respond(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the headers of the response."""
        for name, value in headers:
            if name == LOCATION:
                prefix = self._scope.get(PREFIX)
                self._location = value if prefix is None else prefix.encode() + value

    def end(self) -> None:
        """End the span, with the status that the scope has."""
        self._open.end(self, self._encode(self._scope[STATUS]))

    def encode_unfinished(self) -> bytes:
        """Return the span as it would be if it ended now without an answer, with the tag `UNFINISHED`."""
        return self._encode(None)

    def _encode(self, status: int | None) -> bytes:
        scope, location = self._scope, self._location
        start = self._start or self._encode_start()
        key = (
            scope["method"],
            scope.get("scheme", "http"),
            route_of(scope),
            status,
            self._parent is not None,
            len(start),
            len(location),
        )
        if (layout := self._layouts.get(key)) is None:
            if len(self._layouts) >= encoding.LAYOUTS_MAX:
                self._layouts.clear()  # The lengths of paths are up to the clients.
            layout = self._layouts[key] = _layout(*key)
        head, before_location = layout
        return b"".join((head, start, encoding.ended(time_ns()), before_location, location))

    def _encode_start(self) -> bytes:
        """Encode once what does not change until the end."""
        traceparent, parent = self.traceparent, self._parent
        ids = unhexlify(traceparent[3:35] + traceparent[36:52])
        if parent is not None:
            ids += unhexlify(parent[36:52])
        start = encoding.start(ids[:16], ids[16:24], ids[24:], self._began)
        self._start = start = start + encoding.text_attribute("url.path", self._path)
        return start


_Key = tuple[str, str, str, int | None, bool, int, int]
"""Method, scheme, route, status (None if unfinished), whether there is a parent, and the lengths of the start
and of Location."""


def _layout(
    method: str,
    scheme: str,
    route: str,
    status: int | None,
    has_parent: bool,
    start_length: int,
    location_length: int,
) -> tuple[bytes, bytes]:
    """Return what goes before the start of a span, and before its Location."""
    method = method if method in METHODS else "_OTHER"
    shape = _shape(method, scheme, route, status or 0, has_parent)
    if location_length:
        shape += encoding.head_of_list("http.response.header.location", location_length)
    length = start_length + encoding.TIME_LENGTH + len(shape) + location_length
    return encoding.head(
        length, encoding.SPAN if status is not None else encoding.UNFINISHED
    ), shape


def _shape(method: str, scheme: str, route: str, status: int, has_parent: bool) -> bytes:
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

"""Spans of HTTP requests, after OpenTelemetry's HTTP conventions."""

from collections.abc import Awaitable, Iterable
from time import time_ns
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.telemetry import encoding
from todoku.telemetry.parents import is_sampled, new_span_id, new_trace_id
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
    it.

    The application sees a `traceparent` of this span in place of the client's.
    """

    def __init__(self, app: ASGIApp, tracer: ServiceTracer) -> None:
        self._app, self._tracer = app, tracer
        self._layouts: dict[_Key, tuple[bytes, bytes, bytes]] = {}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"] not in UNTRACED:
            self._begin(scope)
        return self._app(scope, receive, send)

    def _begin(self, scope: Scope) -> None:
        headers = scope["headers"]
        parent = None
        for name, _ in headers:
            if name in TRACE_HEADERS:
                parent = read_traceparent(header_values(scope, b"traceparent") or [b""])
                replaced = (b"traceparent",) if parent else TRACE_HEADERS
                headers = [header for header in headers if header[0] not in replaced]
                break
        if parent is None:
            trace_id = new_trace_id()
            sampled = self._tracer.sample(trace_id)
        else:
            trace_id, sampled = parent[3:35], is_sampled(parent)
        traceparent = f"00-{trace_id}-{new_span_id()}-{'01' if sampled else '00'}"
        scope["headers"] = [*headers, (b"traceparent", traceparent.encode())]
        if sampled:
            scope[TRACED] = traceparent
            scope[REQUEST_SPAN] = span = _RequestSpan(self, scope, traceparent, parent)
            if scope["method"] not in UNCHANGING:
                self._tracer.open.begin(span)

    def layout(self, key: "_Key") -> tuple[bytes, bytes, bytes]:
        """Return what goes before the trace id, the path and the Location of a span."""
        if (found := self._layouts.get(key)) is None:
            if len(self._layouts) >= encoding.LAYOUTS_MAX:
                self._layouts.clear()  # The lengths of paths are up to the clients.
            found = self._layouts[key] = _layout(*key)
        return found

    def end(self, span: "_RequestSpan", status: int) -> None:
        """Keep a span that has ended."""
        self._tracer.open.end(span, status)


class _RequestSpan:
    """The span of one request: a `RequestSpan` of the web, and an `OpenSpan`."""

    __slots__ = ("_began", "_location", "_middleware", "_parent", "_path", "_scope", "traceparent")

    def __init__(
        self, middleware: TraceMiddleware, scope: Scope, traceparent: str, parent: str | None
    ) -> None:
        self.traceparent = traceparent
        self._middleware, self._scope, self._parent = middleware, scope, parent
        self._path, self._location, self._began = scope["path"], b"", time_ns()

    def respond(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the headers of the response."""
        for name, value in headers:
            if name == LOCATION:
                prefix = self._scope.get(PREFIX)
                self._location = value if prefix is None else prefix.encode() + value

    def end(self) -> None:
        """End the span, with the status that the scope has."""
        self._middleware.end(self, self._scope[STATUS])

    def encode(self, status: int) -> bytes:
        """Return the span as it would be if it ended now with this status, 0 for unanswered."""
        scope, traceparent, parent = self._scope, self.traceparent, self._parent
        path, location = self._path.encode(), self._location
        head, before_path, before_location = self._middleware.layout(
            (
                scope["method"],
                scope.get("scheme", "http"),
                route_of(scope),
                status,
                parent is not None,
                len(path),
                len(location),
            )
        )
        ids = bytes.fromhex(traceparent[3:35] + traceparent[36:52])
        times = encoding.times(self._began, time_ns())
        start = (head, ids[:16], b"\x12\x08", ids[16:])
        end = (times, before_path, path, before_location, location)
        if parent is None:
            return b"".join((*start, *end))
        return b"".join((*start, b'"\x08', bytes.fromhex(parent[36:52]), *end))


_Key = tuple[str, str, str, int, bool, int, int]
"""Method, scheme, route, status, whether there is a parent, and the lengths of path and Location."""


def _layout(
    method: str,
    scheme: str,
    route: str,
    status: int,
    has_parent: bool,
    path_length: int,
    location_length: int,
) -> tuple[bytes, bytes, bytes]:
    method = method if method in METHODS else "_OTHER"
    before_path = _shape(method, scheme, route, status, has_parent)
    before_path += encoding.head_of_text("url.path", path_length)
    before_location = b""
    if location_length:
        before_location = encoding.head_of_list("http.response.header.location", location_length)
    length = len(before_path) + path_length + len(before_location) + location_length
    return encoding.head(length, has_parent=has_parent), before_path, before_location


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

"""Spans of HTTP requests, after OpenTelemetry's HTTP conventions."""

from collections.abc import Awaitable
from time import time_ns
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from todoku.telemetry import encoding
from todoku.telemetry.parents import Parent, new_span_id, new_trace, parent_of
from todoku.telemetry.tracer import ServiceTracer
from todoku.web.call import header_values, read_traceparent
from todoku.web.metrics import METHODS
from todoku.web.middleware import STATUS, TRACED, route_of

UNTRACED: Final = frozenset({"/livez", "/readyz", "/metrics"})
"""Requests that monitoring repeats for ever."""

LOCATION: Final = b"location"
TRACEPARENT: Final = (b"traceparent",)


class TraceMiddleware:
    """Make a span of each request, within the trace that the client names, if any.

    The application sees a `traceparent` of this span in place of the client's.
    """

    def __init__(self, app: ASGIApp, tracer: ServiceTracer) -> None:
        self._app, self._tracer = app, tracer
        self._shapes: dict[tuple[str, str, str, int, bool], bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        sent = header_values(scope, b"traceparent")
        traceparent = read_traceparent(sent) if sent else None
        parent = parent_of(traceparent) if traceparent else None
        replaced = TRACEPARENT if parent else (*TRACEPARENT, b"tracestate")
        parent = parent or new_trace(self._tracer.sample)
        span_id = new_span_id()
        passed_on = parent.child(span_id)
        scope["headers"] = [
            *(header for header in scope["headers"] if header[0] not in replaced),
            (b"traceparent", passed_on.encode()),
        ]
        if not parent.sampled:
            await self._app(scope, receive, send)
            return
        await self._serve(scope, receive, send, parent, span_id, passed_on)

    async def _serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        parent: Parent,
        span_id: int,
        passed_on: str,
    ) -> None:
        scope[TRACED] = passed_on
        began, path, location = time_ns(), scope["path"], b""
        identity = span_id.to_bytes(8)

        def encode() -> bytes:
            status = scope.get(STATUS, 0)
            rest = [
                self._shape(scope, status, bool(parent.span_id)),
                encoding.text_attribute("url.path", path),
            ]
            if location:
                where = location.decode("latin-1")
                rest.append(encoding.list_attribute("http.response.header.location", where))
            return encoding.span(
                parent.trace_id, identity, parent.span_id, began, time_ns(), b"".join(rest)
            )

        def note_location(message: Message) -> Awaitable[None]:
            nonlocal location
            if message["type"] == "http.response.start":
                location = dict(message["headers"]).get(LOCATION, b"")
            return send(message)

        changes = scope["method"] not in ("GET", "HEAD")
        if changes:
            self._tracer.open.begin(passed_on, identity, encode)
        try:
            await self._app(scope, receive, note_location if changes else send)
        finally:
            self._tracer.open.end(passed_on, identity, encode())

    def _shape(self, scope: Scope, status: int, has_parent: bool) -> bytes:
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        key = (method, scope.get("scheme", "http"), route_of(scope), status, has_parent)
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = _shape(*key)
        return found


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

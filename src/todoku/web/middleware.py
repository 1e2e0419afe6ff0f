"""ASGI middleware of every application: metrics, problems, trailing slashes."""

import asyncio
from collections.abc import Awaitable, Iterable
from time import perf_counter
from typing import Final, Protocol

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from todoku.database import DatabaseUnavailable
from todoku.engine import (
    AnswerUnavailable,
    IdempotencyKeyReused,
    MailboxFull,
    RequestInProgress,
)
from todoku.events import trace_fields
from todoku.lifecycle import UnknownStatus
from todoku.web.body import ClientDisconnected
from todoku.web.call import TRACED, header_values, read_traceparent
from todoku.web.metrics import Metrics
from todoku.web.operations import Refusals, method_not_allowed
from todoku.web.problems import (
    ANSWER_UNAVAILABLE,
    CONTENT_TYPE,
    DATABASE_UNAVAILABLE,
    IDEMPOTENCY_KEY_REUSED,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    NEWER_VERSION,
    OUTCOME_UNKNOWN,
    OVERLOADED,
    REQUEST_IN_PROGRESS,
    UNKNOWN_ADDRESS,
    Problem,
)
from todoku.web.reply import encode

log = structlog.get_logger(__name__)

STATUS: Final = "todoku.status"
"""Scope key: the status of the response, 0 until one has begun."""

REQUEST_SPAN: Final = "todoku.request_span"
"""Scope key: the `RequestSpan` of a request that is traced."""


class RequestSpan(Protocol):
    """The span of a request, which has begun."""

    def respond(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the headers of the response."""

    def end(self) -> None:
        """End the span, with the status that the scope has."""


class MetricsMiddleware:
    """Count and time HTTP requests; note the status of the response in the scope; end the span of a request
    that is traced."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        scope[STATUS] = 0  # It stays 0 if the client disconnected before a response.
        span: RequestSpan | None = scope.pop(REQUEST_SPAN, None)  # It refers to the scope.

        def note_status(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                scope[STATUS] = message["status"]
                if span is not None:
                    span.respond(message["headers"])
            return send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            seconds = perf_counter() - began
            if span is not None:
                span.end()
            self._metrics.observe(
                scope["method"], route_of(scope), scope[STATUS], seconds, scope.get(TRACED)
            )


class ProblemMiddleware:
    """Answer exceptions with RFC 9457 problems; within `MetricsMiddleware`, which notes the status.

    If the response has begun, the exception is raised again: the server logs it and closes the
    connection, which tells the client that the response is incomplete.
    """

    def __init__(self, app: ASGIApp, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            if scope[STATUS]:
                raise
            response = self._to_response(scope, error)
            await response(scope, receive, send)
        except asyncio.CancelledError:
            if scope[STATUS]:
                raise
            # The server ends, and has waited long enough for this request: for its body, perhaps.
            response = self._to_response(
                scope, Problem(OUTCOME_UNKNOWN, "The service is stopping.")
            )
            await response(scope, receive, send)

    def _to_response(self, scope: Scope, error: Exception) -> Response:
        problem = to_problem(error, self._refusals)
        if problem.kind is INTERNAL_ERROR:
            log.error(
                "request_failed",
                method=scope["method"],
                route=route_of(scope),
                **trace_fields(_traceparent(scope)),
                exc_info=error,
            )
        return Response(
            encode(problem.details()),
            status_code=problem.kind.status,
            headers={**problem.headers, "Content-Type": CONTENT_TYPE},
        )


class TrailingSlashMiddleware:
    """Serve `/orders/` like `/orders`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope["path"]
        if path.endswith("/") and len(path) > 1:
            scope["path"] = path.rstrip("/") or "/"
        return self._app(scope, receive, send)


def route_of(scope: Scope) -> str:
    """Return the path template of the matched route, such as `/orders/{orderId}`; empty if no route
    matched."""
    route = scope.get("route")
    return "" if route is None else route.path


def _traceparent(scope: Scope) -> str | None:
    return scope.get(TRACED) or read_traceparent(header_values(scope, b"traceparent") or [b""])


def to_problem(error: Exception, refusals: Refusals) -> Problem:
    """Map an exception to a problem. Texts of internal errors are not sent to clients."""
    match error:
        case Problem():
            return error
        case MailboxFull():
            return Problem(OVERLOADED, str(error), headers={"Retry-After": "1"})
        case RequestInProgress():
            return Problem(REQUEST_IN_PROGRESS, str(error), headers={"Retry-After": "1"})
        case UnknownStatus():
            return Problem(NEWER_VERSION, str(error), headers={"Retry-After": "1"})
        case IdempotencyKeyReused():
            return Problem(IDEMPOTENCY_KEY_REUSED, str(error))
        case AnswerUnavailable():
            return Problem(ANSWER_UNAVAILABLE, str(error))
        case DatabaseUnavailable():
            return Problem(DATABASE_UNAVAILABLE, DATABASE_UNAVAILABLE.advice)
        case ClientDisconnected():
            return Problem(
                MALFORMED_REQUEST, "The connection was closed before the request was complete."
            )
        case HTTPException(status_code=405):
            return method_not_allowed("GET, HEAD")  # Only static files reach this.
        case HTTPException():
            return Problem(UNKNOWN_ADDRESS, "No resource has this address: see /docs.")
        case _ if type(error) in refusals:
            return Problem(refusals[type(error)], str(error))
        case _:
            return Problem(INTERNAL_ERROR, INTERNAL_ERROR.advice)

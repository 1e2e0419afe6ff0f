"""Build the ASGI application of a service: operations, problems, health, metrics, documents."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from msgspec.structs import replace
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.database import DatabaseUnavailable
from todoku.engine import MailboxFull
from todoku.web import openapi
from todoku.web.backend import Backend
from todoku.web.dead_letters import DEAD_LETTER_REFUSALS, dead_letter_operations
from todoku.web.exchange import ClientDisconnected, encode
from todoku.web.health import health_operations
from todoku.web.metrics import Metrics, MetricsMiddleware, route_of
from todoku.web.operations import (
    Api,
    Endpoint,
    Limits,
    Operation,
    Serve,
    method_not_allowed,
    routes,
)
from todoku.web.pages import page_routes
from todoku.web.problems import (
    CONTENT_TYPE,
    DATABASE_UNAVAILABLE,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    OVERLOADED,
    UNKNOWN_ADDRESS,
    Problem,
    ProblemType,
)
from todoku.web.resend import resend_operations

log = structlog.get_logger(__name__)

Refusals = Mapping[type[Exception], ProblemType]


def application(
    api: Api,
    backend: Backend,
    *,
    limits: Limits | None = None,
    collectors: Iterable[Collector] = (),
    events: Mapping[str, Any] | None = None,
) -> ASGIApp:
    """Return the ASGI application that serves an API; `collectors` are added to its metrics.

    `events` is the AsyncAPI document, served at `/asyncapi.json`.
    """
    api = replace(
        api,
        operations=[*api.operations, *shared_operations(backend)],
        refusals={**api.refusals, **DEAD_LETTER_REFUSALS},
    )
    metrics = Metrics(collectors)
    limits = limits or Limits()
    documents: dict[str, Mapping[str, Any]] = {"/openapi.json": openapi.document(api)}
    if events is not None:
        documents["/asyncapi.json"] = events
    served = [
        *routes(api.operations, limits),
        *page_routes(api.title, documents),
        Route("/metrics", Endpoint({"GET": _show_metrics(metrics)})),
    ]
    router = Router(
        [_match_whole_path(route) for route in served],
        redirect_slashes=False,
        default=_raise_not_found,
    )
    return MetricsMiddleware(ProblemMiddleware(router, api.refusals), metrics)


class ProblemMiddleware:
    """ASGI middleware that answers exceptions with RFC 9457 problems."""

    def __init__(self, app: ASGIApp, refusals: Refusals) -> None:
        self._app = app
        self._refusals = refusals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(scope["path"]) > 1:
            scope["path"] = scope["path"].rstrip("/")  # `/orders/` is `/orders`.
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            reply = self._reply(scope, error)
            await reply(scope, receive, send)

    def _reply(self, scope: Scope, error: Exception) -> Response:
        problem = _to_problem(error, self._refusals)
        if problem.kind is INTERNAL_ERROR:
            log.error(
                "request_failed",
                method=scope["method"],
                route=route_of(scope),
                exc_info=error,
            )
        return Response(
            encode(problem.details()),
            status_code=problem.kind.status,
            headers={**problem.headers, "Content-Type": CONTENT_TYPE},
        )


def _match_whole_path(route: BaseRoute) -> BaseRoute:
    """Anchor the route's pattern with `\\Z`: Starlette's `$` also matches before a final newline."""
    if isinstance(route, Route):
        pattern = route.path_regex.pattern.removesuffix("$") + r"\Z"
        route.path_regex = re.compile(pattern)
    return route


def shared_operations(backend: Backend) -> list[Operation]:
    """Return the operations that every service offers."""
    return [
        *dead_letter_operations(backend),
        *resend_operations(backend),
        *health_operations(backend),
    ]


def _show_metrics(metrics: Metrics) -> Serve:
    async def show(scope: Scope, receive: Receive) -> Response:
        accepted = Headers(scope=scope).get("accept", "")
        write, content_type = choose_encoder(accepted)
        return Response(write(metrics.registry), headers={"Content-Type": content_type})

    return show


async def _raise_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)


def _to_problem(error: Exception, refusals: Refusals) -> Problem:
    """Map an exception to a problem. Texts of internal errors are not sent to clients."""
    match error:
        case Problem():
            return error
        case MailboxFull():
            return Problem(OVERLOADED, str(error), headers={"Retry-After": "1"})
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

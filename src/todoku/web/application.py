"""One service's whole HTTP side: its operations, its problems, health, metrics and documents."""

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
from todoku.web.dead_letters import LETTER_REFUSALS, dead_letter_operations
from todoku.web.exchange import ClientGone, encode
from todoku.web.health import health_operations
from todoku.web.metrics import Measured, Metrics, route_of
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
from todoku.web.send_again import send_again_operations

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
    """The ASGI application that serves an API, with `collectors` among its metrics.

    `events` is the AsyncAPI document to serve beside the OpenAPI one.
    """
    api = replace(
        api,
        operations=[*api.operations, *shared_operations(backend)],
        refusals={**api.refusals, **LETTER_REFUSALS},
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
        [_to_the_last_character(route) for route in served],
        redirect_slashes=False,
        default=_nothing_there,
    )
    return Measured(Answering(router, api.refusals), metrics)


class Answering:
    """An ASGI application whose exceptions are answered with the problems that they are."""

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
                "a request failed",
                method=scope["method"],
                route=route_of(scope),
                exc_info=error,
            )
        return Response(
            encode(problem.details()),
            status_code=problem.kind.status,
            headers={**problem.headers, "Content-Type": CONTENT_TYPE},
        )


def _to_the_last_character(route: BaseRoute) -> BaseRoute:
    """The route, for its path only: Starlette's pattern passes over a newline at the end."""
    if isinstance(route, Route):
        pattern = route.path_regex.pattern.removesuffix("$") + r"\Z"
        route.path_regex = re.compile(pattern)
    return route


def shared_operations(backend: Backend) -> list[Operation]:
    """What every service offers, whatever it is about."""
    return [
        *dead_letter_operations(backend),
        *send_again_operations(backend),
        *health_operations(backend),
    ]


def _show_metrics(metrics: Metrics) -> Serve:
    async def show(scope: Scope, receive: Receive) -> Response:
        accepted = Headers(scope=scope).get("accept", "")
        write, content_type = choose_encoder(accepted)
        return Response(write(metrics.registry), headers={"Content-Type": content_type})

    return show


async def _nothing_there(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)


def _to_problem(error: Exception, refusals: Refusals) -> Problem:
    """What the client is told about an error; nothing of one that it has no part in."""
    match error:
        case Problem():
            return error
        case MailboxFull():
            return Problem(OVERLOADED, str(error), headers={"Retry-After": "1"})
        case DatabaseUnavailable():
            return Problem(DATABASE_UNAVAILABLE, DATABASE_UNAVAILABLE.advice)
        case ClientGone():
            return Problem(MALFORMED_REQUEST, "The request breaks off.")
        case HTTPException(status_code=405):
            return method_not_allowed("GET, HEAD")  # Only static files are served by Starlette.
        case HTTPException():
            return Problem(UNKNOWN_ADDRESS, "There is nothing at this address: see /docs.")
        case _ if type(error) in refusals:
            return Problem(refusals[type(error)], str(error))
        case _:
            return Problem(INTERNAL_ERROR, INTERNAL_ERROR.advice)

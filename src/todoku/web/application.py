"""One service's whole HTTP side: its operations, its problems, health, metrics and documents."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from litestar import Litestar, Request, Response, route
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp
from msgspec.structs import replace
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from todoku.database import DatabaseUnavailable
from todoku.engine import MailboxFull
from todoku.web import openapi
from todoku.web.backend import Backend
from todoku.web.dead_letters import LETTER_REFUSALS, dead_letter_operations
from todoku.web.exchange import ClientGone, encode
from todoku.web.health import health_operations
from todoku.web.metrics import Measured, Metrics
from todoku.web.operations import Api, Limits, Operation, routes
from todoku.web.pages import READ, page_routes
from todoku.web.problems import (
    CONTENT_TYPE,
    DATABASE_UNAVAILABLE,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
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
    app = Litestar(
        [
            *routes(api.operations, limits),
            *page_routes(api.title, documents),
            _metrics_route(metrics),
        ],
        exception_handlers={Exception: _problem_handler(api.refusals)},
        openapi_config=None,
        logging_config=None,
        request_max_body_size=limits.body_bytes_max,
    )
    return Measured(app, metrics)


def shared_operations(backend: Backend) -> list[Operation]:
    """What every service offers, whatever it is about."""
    return [
        *dead_letter_operations(backend),
        *send_again_operations(backend),
        *health_operations(backend),
    ]


def _metrics_route(metrics: Metrics) -> HTTPRouteHandler:
    @route("/metrics", http_method=READ)
    async def show_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        write, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(write(metrics.registry), headers={"Content-Type": content_type})

    return show_metrics


def _problem_handler(
    refusals: Refusals,
) -> Callable[[Request[Any, Any, Any], Exception], Response[bytes]]:
    def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        problem = _to_problem(error, refusals)
        if problem.kind is INTERNAL_ERROR:
            log.error(
                "a request failed",
                method=request.method,
                route=request.scope.get("path_template", ""),
                exc_info=error,
            )
        return Response(
            encode(problem.details()),
            status_code=problem.kind.status,
            headers={**problem.headers, "Content-Type": CONTENT_TYPE},
        )

    return answer


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
        case HTTPException():
            return _framework_problem(error)
        case _ if type(error) in refusals:
            return Problem(refusals[type(error)], str(error))
        case _:
            return Problem(INTERNAL_ERROR, INTERNAL_ERROR.advice)


def _framework_problem(error: HTTPException) -> Problem:
    """What Litestar itself says: that an address or a method is not offered, or the Host is off."""
    match error.status_code:
        case 404:
            return Problem(UNKNOWN_ADDRESS, "There is nothing at this address: see /docs.")
        case 405:
            allowed = ", ".join(sorted((error.headers or {})["allow"].split(", ")))
            return Problem(METHOD_NOT_ALLOWED, f"Use one of {allowed}.", headers={"Allow": allowed})
        case status if status < 500:
            return Problem(MALFORMED_REQUEST, error.detail)
        case _:
            return Problem(INTERNAL_ERROR, INTERNAL_ERROR.advice)

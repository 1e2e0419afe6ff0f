"""Build the ASGI application of a service: operations, problems, health, metrics, documents."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.engine import AuditKeeper
from todoku.identity.scopes import METRICS_READ
from todoku.web import openapi
from todoku.web.audit_log import audit_operations
from todoku.web.auditing import RefusalMiddleware, audited
from todoku.web.backend import Backend
from todoku.web.cross_origin import cross_origin
from todoku.web.dead_letters import DEAD_LETTER_REFUSALS, dead_letter_operations
from todoku.web.forwarded import ForwardedMiddleware
from todoku.web.guard import Authenticate, AuthenticationMiddleware, protected
from todoku.web.health import health_operations
from todoku.web.hosts import OPEN_PATHS, PROBED_PATHS, HostMiddleware, KnownHosts
from todoku.web.keys import key_operations
from todoku.web.metrics import Metrics
from todoku.web.middleware import MetricsMiddleware, ProblemMiddleware, TrailingSlashMiddleware
from todoku.web.operations import (
    Api,
    Endpoint,
    ExactRoute,
    Handler,
    Limits,
    Operation,
    OperationRouter,
    routes,
)
from todoku.web.pages import page_routes
from todoku.web.pauses import PAUSE_REFUSALS, pause_operations
from todoku.web.persons import PERSON_REFUSALS
from todoku.web.prefix import ForwardedPrefixMiddleware
from todoku.web.rate_limits import FailureLimitMiddleware, RateLimiter, RateLimitMiddleware
from todoku.web.resend import resend_operations
from todoku.web.whoami import whoami_operation


async def nothing_to_refresh() -> None:
    """Do nothing before metrics are collected."""


def application(
    api: Api,
    backend: Backend,
    *,
    limits: Limits | None = None,
    collectors: Iterable[Collector] = (),
    refresh: Callable[[], Awaitable[None]] = nothing_to_refresh,
    events: Mapping[str, Any] | None = None,
    middleware: Sequence[Middleware] = (),
    outermost: Sequence[Middleware] = (),
    trust_forwarded_prefix: bool = False,
    hosts: KnownHosts | None = None,
    behind_proxy: bool = False,
    cors_origins: Sequence[str] = (),
    limiter: RateLimiter | None = None,
    audit: AuditKeeper | None = None,
    more: Sequence[Operation] = (),
    authenticate: Authenticate | None = None,
) -> ASGIApp:
    """Return the ASGI application that serves an API; `collectors` are added to its metrics.

    `refresh` is awaited before its metrics are collected.
    `events` is the AsyncAPI document, served at `/asyncapi.json`. `middleware` is called after the
    service's own, so that a `Problem` it raises is answered and counted like any other; what is
    `outermost` is called before everything else.
    `trust_forwarded_prefix`: a proxy sets X-Forwarded-Prefix (see `ForwardedPrefixMiddleware`).
    `hosts`: the names under which it is reached, any if None (see `HostMiddleware`). `more` operations are
    those of a running process, such as `getSystem`.
    `behind_proxy`: a proxy sets X-Forwarded-For or Forwarded (see `ForwardedMiddleware`).
    `cors_origins`: the other sites whose pages may call it. `limiter` limits the requests of each caller.
    `audit`: writes the audit log; None if there is to be none.
    `authenticate` tells who has a credential; without it, anybody may call everything.
    """
    api = replace(
        api,
        operations=[*api.operations, *shared_operations(backend), *more],
        refusals={**api.refusals, **DEAD_LETTER_REFUSALS, **PAUSE_REFUSALS, **PERSON_REFUSALS},
    )
    if audit is not None:
        noted = [audited(each, audit, api.refusals) for each in api.operations]
        api = replace(api, operations=noted)
    metrics = Metrics(collectors)
    required = authenticate is not None
    show_metrics = protected(_show_metrics(metrics, refresh), METRICS_READ, required=required)
    documents: dict[str, Mapping[str, Any]] = {
        "/openapi.json": openapi.document(api, required=required)
    }
    if events is not None:
        documents["/asyncapi.json"] = events
    open_paths = OPEN_PATHS if authenticate is not None else PROBED_PATHS
    return OperationRouter(
        [
            *routes(api.operations, limits or Limits(), api.refusals, required),
            *page_routes(api, documents),
            ExactRoute("/metrics", Endpoint({"GET": show_metrics})),
        ],
        redirect_slashes=False,
        default=_raise_not_found,
        middleware=[
            *outermost,
            *([Middleware(ForwardedMiddleware)] if behind_proxy else []),
            *([Middleware(ForwardedPrefixMiddleware)] if trust_forwarded_prefix else []),
            Middleware(MetricsMiddleware, metrics),
            *cross_origin(cors_origins),
            Middleware(ProblemMiddleware, api.refusals),
            Middleware(TrailingSlashMiddleware),
            *(
                [Middleware(HostMiddleware, hosts, cors_origins, open_paths)]
                if hosts is not None
                else []
            ),
            *([Middleware(RefusalMiddleware, audit)] if audit is not None else []),
            *([Middleware(FailureLimitMiddleware, limiter)] if limiter is not None else []),
            *([Middleware(AuthenticationMiddleware, authenticate)] if authenticate else []),
            *middleware,
            *([Middleware(RateLimitMiddleware, limiter)] if limiter is not None else []),
        ],
    )


def shared_operations(backend: Backend) -> list[Operation]:
    """Return the operations that every service offers."""
    return [
        *dead_letter_operations(backend),
        *resend_operations(backend),
        *pause_operations(backend),
        *audit_operations(backend),
        *key_operations(backend),
        whoami_operation(),
        *health_operations(backend),
    ]


def _show_metrics(metrics: Metrics, refresh: Callable[[], Awaitable[None]]) -> Handler:
    async def show(scope: Scope, receive: Receive) -> Response:
        await refresh()
        accepted = Headers(scope=scope).get("accept", "")
        write, content_type = choose_encoder(accepted)
        return Response(write(metrics.registry), headers={"Content-Type": content_type})

    return show


async def _raise_not_found(scope: Scope, receive: Receive, send: Send) -> None:
    raise HTTPException(404)

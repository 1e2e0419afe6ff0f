"""Build the ASGI application of the console: the page, its files, and `/api/…`."""

from collections.abc import Mapping
from typing import Any

import httpx
from starlette.middleware import Middleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

import todoku
from todoku.console.forwarding import PREFIX, Forwarder
from todoku.console.logins import Logins
from todoku.console.pages import Files, Page, SecurityHeadersMiddleware
from todoku.console.problems import PROBLEM_TYPES
from todoku.web.forwarded import ForwardedMiddleware
from todoku.web.health import Health
from todoku.web.hosts import HostMiddleware, KnownHosts
from todoku.web.metrics import Metrics
from todoku.web.middleware import MetricsMiddleware, ProblemMiddleware
from todoku.web.operations import Endpoint, ExactRoute, Limits
from todoku.web.pages import problem_routes
from todoku.web.prefix import ForwardedPrefixMiddleware
from todoku.web.problems import ordered
from todoku.web.reply import Reply


def application(
    addresses: Mapping[str, str],
    client: httpx.AsyncClient,
    *,
    limits: Limits,
    logins: Logins | None = None,
    hosts: KnownHosts | None = None,
    trust_forwarded_prefix: bool = False,
    behind_proxy: bool = False,
) -> ASGIApp:
    """Return the ASGI application. `addresses` are those of the services by name, in the order in which
    an order passes them; without `logins` nobody logs in, and requests bring their own credential."""
    return Router(
        [
            _json_route("/api", {"version": todoku.__version__, "services": list(addresses)}),
            _json_route("/livez", Health()),
            _json_route("/readyz", Health()),
            *(logins.routes if logins is not None else []),
            *problem_routes(ordered(PROBLEM_TYPES)),
        ],
        redirect_slashes=False,
        default=_Default(Forwarder(addresses, client, limits, logins)),
        middleware=[
            *([Middleware(ForwardedMiddleware)] if behind_proxy else []),
            *([Middleware(ForwardedPrefixMiddleware)] if trust_forwarded_prefix else []),
            Middleware(SecurityHeadersMiddleware),
            Middleware(MetricsMiddleware, Metrics()),
            Middleware(ProblemMiddleware, {}),
            *([Middleware(HostMiddleware, hosts)] if hosts is not None else []),
        ],
    )


class _Default:
    """What is under no fixed path: the services, files, and the page."""

    def __init__(self, forward: Forwarder) -> None:
        self._forward = forward
        self._files = Files()
        self._page = Page()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve: ASGIApp = self._page
        if scope["path"].startswith(PREFIX):
            serve = self._forward
        elif scope["path"].startswith("/static/"):
            serve = self._files
        await serve(scope, receive, send)


def _json_route(path: str, content: Any) -> ExactRoute:
    async def show(scope: Scope, receive: Receive) -> ASGIApp:
        return Reply(200, content, {"Cache-Control": "no-store"})

    return ExactRoute(path, Endpoint({"GET": show}))

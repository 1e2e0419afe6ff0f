"""The MCP server over HTTP (Streamable HTTP, without sessions), as guarded as the services themselves."""

import asyncio
from typing import Final

from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.cli.agents.calls import Calls, CallStopped
from todoku.cli.agents.server import CREDENTIAL, make_server
from todoku.cli.agents.tool import Services
from todoku.cli.agents.toolbox import Toolbox
from todoku.cli.credential import acting_for
from todoku.cli.errors import CommandFailed
from todoku.cli.output import note
from todoku.console.host import serve_until
from todoku.console.problems import SERVICE_UNREACHABLE
from todoku.host import HttpServer, listen, server_config
from todoku.settings import CONSOLE, Settings
from todoku.tls import ServerCertificate
from todoku.web.forwarded import ForwardedMiddleware
from todoku.web.guard import bearer_credential, unauthenticated
from todoku.web.health import Health
from todoku.web.hosts import HostMiddleware, known_hosts
from todoku.web.metrics import Metrics
from todoku.web.middleware import MetricsMiddleware, ProblemMiddleware
from todoku.web.operations import Endpoint, ExactRoute
from todoku.web.pages import problem_routes
from todoku.web.problems import METHOD_NOT_ALLOWED, RATE_LIMITED, UNKNOWN_ADDRESS, Problem, ordered
from todoku.web.reply import Reply

PATH: Final = "/mcp"
LOOK_SECONDS_MAX: Final = 5.0


async def serve_http(
    toolbox: Toolbox, services: Services, settings: Settings, stop: asyncio.Event
) -> None:
    """Answer HTTP, at the port that the settings have for the console, until `stop` is set; say where, once
    it listens. Raises `AddressUnusable` and `TlsUnusable`."""
    certificate = ServerCertificate.of(settings)
    calls = Calls(stop)
    server = make_server(toolbox, calls)
    inner = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=settings.request_body_bytes_max,
        # Host and Origin are checked outside, as at the services.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    app = guarded(inner, services, settings, calls)
    http = HttpServer(server_config(CONSOLE, settings, app, certificate))
    # Before the task group of the sessions, which wraps what is raised within it.
    sockets = listen(settings.host, settings.port(CONSOLE))
    note(f"agents reach it at {settings.http_url(CONSOLE)}{PATH}")
    async with server.session_manager.run():
        await serve_until(stop, http, sockets, certificate)


def guarded(inner: ASGIApp, services: Services, settings: Settings, calls: Calls) -> ASGIApp:
    """Return the application with its guards: Host, Origin, and a credential where callers need one."""
    hosts = known_hosts(settings.host, settings.public_hosts)
    return Router(
        [
            ExactRoute("/livez", Endpoint({"GET": _live})),
            *problem_routes(ordered([SERVICE_UNREACHABLE])),
        ],
        redirect_slashes=False,
        default=_OnePath(inner, services, calls, required=settings.auth == "required"),
        middleware=[
            *([Middleware(ForwardedMiddleware)] if settings.behind_proxy else []),
            Middleware(MetricsMiddleware, Metrics()),
            Middleware(ProblemMiddleware, {}),
            *([Middleware(HostMiddleware, hosts)] if hosts is not None else []),
        ],
    )


class _OnePath:
    """Serves `PATH` to callers with a credential that the services know, if callers need one."""

    def __init__(self, inner: ASGIApp, services: Services, calls: Calls, *, required: bool) -> None:
        self._inner = inner
        self._services = services
        self._calls = calls
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            raise Problem(UNKNOWN_ADDRESS, f"Agents call POST {PATH}.")
        if scope["method"] != "POST":
            # Without sessions there is nothing that a stream (GET) could bring, or DELETE could end.
            raise Problem(METHOD_NOT_ALLOWED, "Use POST.", headers={"Allow": "POST"})
        headers = Headers(scope=scope).getlist("authorization")
        key = bearer_credential(headers) if headers else None
        if self._required:
            if key is None:
                raise unauthenticated("Send the header `Authorization: Bearer …`.")
            try:
                await self._calls.run(self._require_known, key)
            except CallStopped:
                raise Problem(SERVICE_UNREACHABLE, "The MCP server was stopped.") from None
        scope[CREDENTIAL] = key
        await self._inner(scope, receive, send)

    def _require_known(self, key: str) -> None:
        """Raise `Problem` unless a service knows the credential: the first that answers is asked."""
        unreachable: CommandFailed | None = None
        with acting_for(key):
            for name in self._services.names:
                service = self._services.client(name, LOOK_SECONDS_MAX)
                try:
                    service.get("/whoami")
                except CommandFailed as failure:
                    if failure.problem == "unauthenticated":
                        raise unauthenticated(
                            "The credential is not valid.", invalid=True
                        ) from failure
                    if failure.problem == RATE_LIMITED.slug:
                        raise Problem(RATE_LIMITED, "Too many wrong credentials.") from failure
                    unreachable = failure
                else:
                    return
        raise Problem(
            SERVICE_UNREACHABLE, "No service answers that could check the credential."
        ) from unreachable


async def _live(scope: Scope, receive: Receive) -> ASGIApp:
    return Reply(200, Health(), {"Cache-Control": "no-store"})

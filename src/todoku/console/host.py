"""Run the console: its HTTP server, and its connections to the services."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from socket import socket
from typing import Any

import httpx

from todoku import logs
from todoku.console.application import application
from todoku.console.code_flow import Client, CodeFlow
from todoku.console.forwarding import make_client
from todoku.console.logins import Logins
from todoku.console.sessions import Sessions
from todoku.exposure import require_protection
from todoku.host import HttpServer, listen, server_config
from todoku.settings import CONSOLE, Settings, SettingsInvalid
from todoku.system import load_system
from todoku.tls import ServerCertificate, own_context, public_context
from todoku.web import Limits
from todoku.web.descriptors import raise_descriptor_limit
from todoku.web.hosts import known_hosts
from todoku.web.issuer_keys import IssuerKeys, fetch_over_http


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Answer HTTP until `stop` is set. Raises `AddressUnusable`, `SettingsInvalid` and `TlsUnusable`."""
    logs.configure(settings.log_level, settings.log_format, CONSOLE)
    raise_descriptor_limit()
    require_protection(settings)
    certificate = ServerCertificate.of(settings)
    others = public_context(settings.tls_ca) if settings.tls_ca else None
    async with make_client(own_context(settings), _here(settings), others) as client:
        limits = Limits(body_bytes_max=settings.request_body_bytes_max)
        services = addresses(settings)
        app = application(
            services,
            client,
            limits=limits,
            logins=logins(settings, services, client, limits),
            hosts=known_hosts(settings.host, settings.public_hosts),
            trust_forwarded_prefix=settings.trust_forwarded_prefix,
            behind_proxy=settings.behind_proxy,
        )
        server = HttpServer(server_config(CONSOLE, settings, app, certificate))
        sockets = listen(settings.host, settings.port(CONSOLE))
        await serve_until(stop, server, sockets, certificate)


def logins(
    settings: Settings, services: Mapping[str, str], client: httpx.AsyncClient, limits: Limits
) -> Logins:
    """Return how people log in: by key, and at the issuer if the settings name a client for that. Raises
    `TlsUnusable`."""
    return Logins(
        Sessions(
            seconds_max=settings.console_session_seconds,
            idle_seconds_max=settings.console_session_idle_seconds,
        ),
        client,
        f"{next(iter(services.values()))}/whoami",
        limits=limits,
        flow=_code_flow(settings),
        url=settings.console_url,
        behind_proxy=settings.behind_proxy,
    )


def _code_flow(settings: Settings) -> CodeFlow | None:
    issuer, audience = settings.oidc_issuer, settings.oidc_audience
    if settings.oidc_console_client_id is None or issuer is None or audience is None:
        return None
    trusted = public_context(settings.oidc_ca)
    return CodeFlow(
        Client(
            id=settings.oidc_console_client_id,
            secret_file=settings.oidc_console_client_secret_file,
            scope=settings.oidc_console_scope,
            issuer=issuer,
            audience=audience,
            leeway_seconds=settings.oidc_leeway_seconds,
        ),
        IssuerKeys(fetch_over_http(issuer, settings.oidc_jwks_url, trusted), issuer),
        trusted,
        lambda: datetime.now(UTC),
    )


async def serve_until(
    stop: asyncio.Event,
    server: HttpServer,
    sockets: list[socket],
    certificate: ServerCertificate | None,
) -> None:
    """Serve on these sockets until `stop` is set, and load the certificate again whenever it has changed."""
    serving = asyncio.create_task(server.serve(sockets))
    waiting: list[asyncio.Task[Any]] = [asyncio.create_task(stop.wait())]
    if certificate is not None:
        waiting.append(asyncio.create_task(certificate.watch()))
    await asyncio.wait((serving, *waiting), return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    server.should_exit = True
    await serving


def addresses(settings: Settings) -> Mapping[str, str]:
    """Return where the console reaches each service. Raises `SettingsInvalid`."""
    names = load_system(settings).names
    elsewhere = dict(_written(settings.console_services))
    unknown = elsewhere.keys() - set(names)
    if unknown:
        raise SettingsInvalid(
            [
                f"console_services names {', '.join(sorted(unknown))}, which is no service of this"
                f" system: there are {', '.join(names)}."
            ]
        )
    return {name: elsewhere.get(name) or settings.http_url(name) for name in names}


def _here(settings: Settings) -> list[str]:
    """Return the addresses of services on this machine, which have the certificate of the settings."""
    return [settings.http_url(name) for name in load_system(settings).names]


def _written(text: str) -> list[tuple[str, str]]:
    pairs = [pair.partition("=") for pair in map(str.strip, text.split(",")) if pair]
    return [(name.strip(), address.strip().rstrip("/")) for name, _, address in pairs]

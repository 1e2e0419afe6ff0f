"""Forward requests to the services, with the caller's own rights, and stream the responses back."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from ssl import SSLContext
from typing import Any, Final

import httpx
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from todoku.console.logins import Logins
from todoku.console.problems import SERVICE_SLOW, SERVICE_UNREACHABLE, UNKNOWN_SERVICE
from todoku.console.sessions import Session
from todoku.web.body import BODY_RECEIVED, read_body
from todoku.web.event_streams import MEDIA_TYPE
from todoku.web.forwarded import source_of
from todoku.web.operations import Limits
from todoku.web.problems import Problem
from todoku.web.reply import SHUTDOWN

PREFIX: Final = "/api/"

REQUEST_HEADERS: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"authorization",
        b"content-encoding",
        b"content-type",
        b"idempotency-key",
        b"if-match",
        b"last-event-id",
        b"prefer",
        b"traceparent",
        b"tracestate",
    }
)
"""What a service is told of a request. Cookies are the console's own: a request without Authorization has the
credential of the session that its cookie names."""

KEPT_BACK: Final = frozenset(
    {
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"server",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers of a response that are about its connection (RFC 9110, section 7.6.1), or that the console sets."""

TIMEOUT: Final = httpx.Timeout(connect=2.0, write=10.0, pool=5.0, read=70.0)
"""A response may be asked for after 60 s (`Prefer: wait`), and a stream sends something every 15 s."""

CONNECTIONS: Final = httpx.Limits(max_connections=600, max_keepalive_connections=30)


def make_client(
    own: SSLContext | None = None,
    own_addresses: Sequence[str] = (),
    others: SSLContext | None = None,
) -> httpx.AsyncClient:
    """Return a client that goes to the services directly, whatever proxy the environment names. `own` is how
    to trust those at `own_addresses`, `others` how to trust the rest; without it, by the system's certificate
    authorities."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # It logs every request.
    mounts = {
        address: httpx.AsyncHTTPTransport(verify=own, limits=CONNECTIONS)
        for address in own_addresses
        if own is not None
    }
    return httpx.AsyncClient(
        trust_env=False,
        verify=True if others is None else others,
        timeout=TIMEOUT,
        limits=CONNECTIONS,
        follow_redirects=False,
        mounts=mounts,
    )


class Forwarder:
    """Sends `/api/SERVICE/PATH` to that service as `/PATH`; an ASGI application."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        client: httpx.AsyncClient,
        limits: Limits,
        logins: Logins | None = None,
    ) -> None:
        self._addresses = {name: httpx.URL(address) for name, address in addresses.items()}
        self._client = client
        self._limits = limits
        self._logins = logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, path = _target(scope)
        if name not in self._addresses:
            known = ", ".join(self._addresses)
            raise Problem(UNKNOWN_SERVICE, f"No service is called {name!r}: there are {known}.")
        session = await self._session(scope)
        body = await self._body(scope, receive)
        request = self._client.build_request(
            scope["method"],
            self._addresses[name].copy_with(raw_path=path),
            headers=_request_headers(scope, session),
            content=body or None,
        )
        response = await self._send(name, request)
        try:
            if session is not None and response.status_code == httpx.codes.UNAUTHORIZED:
                self._end(session, name)
            await self._reply(response, scope, session)(scope, receive, send)
        finally:
            await response.aclose()

    async def _session(self, scope: Scope) -> Session | None:
        """Return the session of a request that brings no credential itself."""
        if self._logins is None or any(name == b"authorization" for name, _ in scope["headers"]):
            return None
        return await self._logins.session_of(scope)

    def _end(self, session: Session, name: str) -> None:
        """End a session whose credential the service refuses that has accepted it before. Others may not know
        a new key yet."""
        if self._logins is not None and name == next(iter(self._addresses)):
            self._logins.refused(session)

    def _reply(self, response: httpx.Response, scope: Scope, session: Session | None) -> Response:
        content = response.aiter_raw()
        if response.headers.get("content-type", "").startswith(MEDIA_TYPE):
            stops = [(scope.get(SHUTDOWN) or asyncio.Event()).wait()]
            if session is not None and self._logins is not None:
                stops.append(self._logins.wait_for_end(session))
            content = _until(stops, content)
        reply = StreamingResponse(content, status_code=response.status_code)
        reply.raw_headers = [
            (name.lower(), value)
            for name, value in response.headers.raw
            if name.lower() not in KEPT_BACK
        ]
        return reply

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        if scope["method"] in ("GET", "HEAD"):
            return b""
        return await read_body(
            dict(scope["headers"]),
            receive,
            bytes_max=self._limits.body_bytes_max,
            seconds_max=self._limits.body_seconds_max,
            complete=BODY_RECEIVED in scope,
            any_type=True,
        )

    async def _send(self, name: str, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request, stream=True)
        except httpx.ConnectTimeout:
            raise Problem(
                SERVICE_UNREACHABLE,
                f"{name} did not accept a connection within {TIMEOUT.connect:g} s.",
            ) from None
        except httpx.TimeoutException:
            raise Problem(
                SERVICE_SLOW, f"{name} did not respond within {TIMEOUT.read:g} s."
            ) from None
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            raise Problem(SERVICE_UNREACHABLE, f"{name} cannot be reached: {what}.") from None


def _target(scope: Scope) -> tuple[str, bytes]:
    """Return the service that a request names, and the path and query to send to it, as they came."""
    name, slash, path = scope["raw_path"].decode("latin-1").removeprefix(PREFIX).partition("/")
    query = scope["query_string"]
    return name, (slash + path or "/").encode("latin-1") + (b"?" + query if query else b"")


def _request_headers(scope: Scope, session: Session | None) -> list[tuple[bytes, bytes]]:
    headers = [(name, value) for name, value in scope["headers"] if name in REQUEST_HEADERS]
    if session is not None:
        headers.append((b"authorization", b"Bearer " + session.credential.encode()))
    if not any(name == b"accept-encoding" for name, _ in headers):
        headers.append((b"accept-encoding", b"identity"))
    # Services count it only if they are told that a proxy is in front of them.
    headers.append((b"x-forwarded-for", source_of(scope).encode()))
    return headers


async def _until(
    stops: Sequence[Coroutine[Any, Any, object]], chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield the chunks of a stream until it ends or breaks, or until one of `stops` returns."""
    stopping = [asyncio.ensure_future(each) for each in stops]
    upcoming: asyncio.Future[bytes] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(chunks))
            await asyncio.wait((upcoming, *stopping), return_when=asyncio.FIRST_COMPLETED)
            if any(each.done() for each in stopping) or not upcoming.done():
                return
            try:
                yield upcoming.result()
            except (StopAsyncIteration, httpx.HTTPError):
                return  # The client connects again, and goes on behind the last event.
    finally:
        for each in stopping:
            each.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait((upcoming,))

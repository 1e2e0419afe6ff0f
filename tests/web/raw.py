"""Raw connections to a server, as hostile and careless clients make them."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
from starlette.types import ASGIApp

from todoku.database import Database
from todoku.identity import OPEN
from todoku.web import Api, Backend, Call, Operation, Reply, SuccessResponse, application
from web.edge import RecordingProcess, listening, run_inline

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: here\r\n"
BODY = b'{"text":"x"}'
POST = b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


class Text(msgspec.Struct, forbid_unknown_fields=True):
    """A body to echo."""

    text: str


async def echo(call: Call) -> Reply:
    return Reply(200, call.body)


def echo_app(handle: Callable[[Call], Awaitable[Reply]] = echo) -> ASGIApp:
    """Return an application with an operation that echoes its body."""
    operation = Operation(
        id="echo",
        method="POST",
        scope=OPEN,
        path="/echo",
        summary="Echo the body",
        handle=handle,
        body=Text,
        responses=[SuccessResponse(status=200, description="The body.", content=Text)],
    )
    process = RecordingProcess(lambda _: None)
    backend = Backend(process=process, database=Database.in_memory(), run_read=run_inline)
    return application(Api(title="Echo", description="", operations=[operation]), backend)


@asynccontextmanager
async def connected(
    app: ASGIApp | None = None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Serve the application (by default, one that echoes) and connect to it."""
    async with listening(app or echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def receive_all(*parts: bytes, app: ASGIApp | None = None, pause: float = 0.0) -> bytes:
    """Send parts in turn, and return all that is received until the server closes."""
    async with connected(app) as (reader, writer):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)  # The parts must not arrive as one.
        return await asyncio.wait_for(reader.read(), 10)


def statuses(received: bytes) -> list[int]:
    """Return the status of each response."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received)]

"""A service that answers what it was asked, and streams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from todoku.console.application import application
from todoku.console.forwarding import make_client
from todoku.web import Limits
from todoku.web.hosts import KnownHosts
from web.edge import listening


async def echo(request: Request) -> Response:
    """Answer with the request."""
    return JSONResponse(
        {
            "method": request.method,
            "target": request.scope["raw_path"].decode() + "?" + request.url.query,
            "headers": dict(request.headers),
            "body": (await request.body()).decode(),
        },
        status_code=int(request.query_params.get("status", 200)),
        headers={"ETag": '"7"', "Set-Cookie": "secret=1", "Location": "/orders/1"},
    )


class StubService:
    """A service with a stream that never ends by itself; `closed` is set when it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def stream(self, request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            try:
                yield b"data: 1\n\n"
                await asyncio.Event().wait()
            finally:
                self.closed.set()

        return StreamingResponse(events(), media_type="text/event-stream")

    @property
    def app(self) -> ASGIApp:
        methods = ["GET", "POST", "PUT", "DELETE"]
        return Starlette(
            routes=[
                Route("/orders/stream", self.stream),
                Route("/{path:path}", echo, methods=methods),
            ]
        )


@asynccontextmanager
async def console(addresses: dict[str, str]) -> AsyncIterator[ASGIApp]:
    """Yield a console that forwards to these services."""
    async with make_client() as client:
        yield application(
            addresses, client, limits=Limits(body_bytes_max=1_000), hosts=KnownHosts(["127.0.0.1"])
        )


@asynccontextmanager
async def console_with_service() -> AsyncIterator[tuple[httpx.AsyncClient, StubService]]:
    """Yield a client of a console in front of one service, `orders`."""
    service = StubService()
    async with (
        listening(service.app) as (host, port),
        console({"orders": f"http://{host}:{port}"}) as app,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8085"
        ) as client,
    ):
        yield client, service

"""Applications to try: over a process that records commands, or over a real engine."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import uvicorn
from sqlalchemy import MetaData
from starlette.types import ASGIApp

from todoku.broker.memory import MemoryBroker
from todoku.database import Database
from todoku.engine import Process, Service, SteadyClock, Topology
from todoku.web import Api, Backend, BoundedHttpProtocol, application

JSON = {"Content-Type": "application/json"}


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function here and now."""
    return function(*arguments)


class RecordingProcess:
    """Stands for an engine: keeps what it is asked, and gives the answer it was told to give."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.database_available = True
        self.asked: list[Any] = []
        self.traceparents: list[str | None] = []
        self.actors: list[str | None] = []
        self.fail_with: Exception | None = None
        self._answer = answer

    async def ask(
        self, command: Any, *, actor: str | None = None, traceparent: str | None = None
    ) -> Any:
        self.asked.append(command)
        self.actors.append(actor)
        self.traceparents.append(traceparent)
        if self.fail_with is not None:
            raise self.fail_with
        answer = self._answer(command)
        return await answer if hasattr(answer, "__await__") else answer

    def resend_all(self) -> None:
        """Nothing is owed here."""


def empty_database(metadata: MetaData) -> Database:
    """A database in memory with these tables."""
    database = Database.in_memory()
    with database.transaction() as connection:
        metadata.create_all(connection)
    return database


def client(app: ASGIApp) -> httpx.AsyncClient:
    """A client of an application in this process."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
        base_url="http://testserver",
    )


@asynccontextmanager
async def running(service: Service, api: Callable[[Backend], Api]) -> AsyncIterator[ASGIApp]:
    """A service with a real engine and a real database, and its application."""
    async with running_together([(service, api)]) as (app,):
        yield app


@asynccontextmanager
async def running_together(
    services: Sequence[tuple[Service, Callable[[Backend], Api]]],
) -> AsyncIterator[list[ASGIApp]]:
    """Services that hear each other, with real engines and databases, and their applications."""
    broker, topology = MemoryBroker(), Topology([service for service, _ in services])
    apps = []
    async with AsyncExitStack() as stack:
        for service, api in services:
            database = stack.enter_context(empty_database(service.store.metadata))
            process = Process(
                service,
                database,
                service.store.tables,
                broker.session(service.name),
                topology,
                owner="test",
                clock=SteadyClock(),
                run_write=at_once,
                run_read=at_once,
            )
            backend = Backend(process=process, database=database, run_read=at_once)
            apps.append(application(api(backend), backend))
            await process.start()
            stack.push_async_callback(process.stop)
        yield apps


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """An application behind a real server, and the address at which it listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=BoundedHttpProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield listener.getsockname()
        finally:
            server.should_exit = True
            await serving

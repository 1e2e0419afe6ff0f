"""Applications to try: over a process that records commands, or over a real engine."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from litestar.types import ASGIApp
from sqlalchemy import MetaData

from todoku.broker.memory import MemoryBroker
from todoku.database import Database
from todoku.engine import Process, Service, SteadyClock, Topology
from todoku.web import Api, Backend, Limits, application

JSON = {"Content-Type": "application/json"}


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function here and now."""
    return function(*arguments)


class RecordingProcess:
    """Stands for an engine: keeps what it is asked, and gives the answer it was told to give."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.database_well = True
        self.asked: list[Any] = []
        self.traceparents: list[str | None] = []
        self.actors: list[str | None] = []
        self._answer = answer

    async def ask(
        self, command: Any, *, actor: str | None = None, traceparent: str | None = None
    ) -> Any:
        self.asked.append(command)
        self.actors.append(actor)
        self.traceparents.append(traceparent)
        answer = self._answer(command)
        return await answer if hasattr(answer, "__await__") else answer


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
    with empty_database(service.store.metadata) as database:
        process = Process(
            service,
            database,
            service.store.tables,
            MemoryBroker().session(service.name),
            Topology([service]),
            owner="test",
            clock=SteadyClock(),
            run_write=at_once,
            run_read=at_once,
        )
        backend = Backend(process=process, database=database, run_read=at_once)
        await process.start()
        try:
            yield application(api(backend), backend, limits=Limits())
        finally:
            await process.stop()

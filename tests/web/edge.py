"""Test applications: with a process that records commands, or with a real engine."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import uvicorn
from sqlalchemy import Connection, MetaData
from starlette.types import ASGIApp

from todoku.broker.memory import MemoryBroker
from todoku.database import Database
from todoku.engine import (
    Commits,
    EngineConfig,
    IdempotencyKey,
    Process,
    Service,
    SteadyClock,
    Topology,
)
from todoku.engine.testing import running as running_process
from todoku.events import NO_CONTEXT, Context
from todoku.identity.keys import ApiKey
from todoku.web import Api, Backend, BoundedHttpProtocol, application
from todoku.web.access_tokens import AccessTokens, keys_or_tokens
from todoku.web.keyring import Keyring
from todoku.web.keys import api_keys

JSON = {"Content-Type": "application/json"}


async def run_inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in the event loop."""
    return function(*arguments)


class RecordingProcess:
    """A fake engine that records commands and returns scripted results."""

    def __init__(self, respond: Callable[[Any], Any]) -> None:
        self.database_available = True
        self.ready = True
        self.clock = SteadyClock()
        self.commands: list[Any] = []
        self.contexts: list[Context] = []
        self.keys: list[IdempotencyKey | None] = []
        self.fail_with: Exception | None = None
        self.commits = Commits()
        self._respond = respond

    async def execute(
        self, command: Any, context: Context = NO_CONTEXT, key: IdempotencyKey | None = None
    ) -> Any:
        self.commands.append(command)
        self.contexts.append(context)
        self.keys.append(key)
        if self.fail_with is not None:
            raise self.fail_with
        result = self._respond(command)
        return await result if hasattr(result, "__await__") else result

    def wait_for_end(self, key: str) -> asyncio.Future[None] | None:
        return None

    async def transact(self, change: Callable[[Connection], Any]) -> Any:
        raise NotImplementedError

    async def change_key(self, key: ApiKey) -> None:
        raise NotImplementedError

    def resend_all(self) -> None:
        """Do nothing: there are no pending deliveries."""


def empty_database(metadata: MetaData) -> Database:
    """Return an in-memory database with these tables."""
    database = Database.in_memory()
    with database.transaction() as connection:
        metadata.create_all(connection)
    return database


def client(app: ASGIApp) -> httpx.AsyncClient:
    """Return a client of an application in this process."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app),  # type: ignore[arg-type]
        base_url="http://testserver",
    )


@asynccontextmanager
async def running(
    service: Service, api: Callable[[Backend], Api], **options: Any
) -> AsyncIterator[ASGIApp]:
    """Run a service with a real engine and database; yield its application."""
    async with running_together([(service, api)], **options) as (app,):
        yield app


@asynccontextmanager
async def running_together(
    services: Sequence[tuple[Service, Callable[[Backend], Api]]],
    *,
    databases: list[Database] | None = None,
    keyring: bool = False,
    tokens: AccessTokens | None = None,
    config: EngineConfig | None = None,
    **options: Any,
) -> AsyncIterator[list[ASGIApp]]:
    """Run connected services with real engines and databases; yield their applications.

    Their databases are added to `databases`; `options` go to `application`. With a `keyring`, callers need
    an API key, or one of the access `tokens`.
    """
    broker, topology = MemoryBroker(), Topology([service for service, _ in services])
    apps = []
    async with AsyncExitStack() as stack:
        for service, api in services:
            database = stack.enter_context(empty_database(service.store.metadata))
            if databases is not None:
                databases.append(database)
            process = Process(
                service,
                database,
                broker.session(service.name),
                topology,
                owner="test",
                clock=SteadyClock(),
                run_write=run_inline,
                run_read=run_inline,
                config=config,
            )
            backend = Backend(process=process, database=database, run_read=run_inline)
            if keyring:
                options["authenticate"] = keys_or_tokens(Keyring(backend, api_keys), tokens)
            apps.append(application(api(backend), backend, audit=process.audit, **options))
            await stack.enter_async_context(running_process(process))
        yield apps


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[tuple[str, int]]:
    """Serve an application on a free port; yield its host and port."""
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

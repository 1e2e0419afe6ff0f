"""What stands behind the routes: commands go to the engine, reads to the database."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection

from todoku.database import Database
from todoku.engine import ProcessFailed
from todoku.web.problems import OUTCOME_UNKNOWN, Problem

P = ParamSpec("P")
R = TypeVar("R")
Run = Callable[..., Awaitable[Any]]


class Engine(Protocol):
    """What a route needs of a `todoku.engine.Process`."""

    database_available: bool

    async def ask(
        self, command: Any, *, actor: str | None = None, traceparent: str | None = None
    ) -> Any:
        """Have a command carried out; the state that it left, once that is committed."""

    def resend_all(self) -> None:
        """Send everything that is still owed once more."""


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """A service's engine and database. `run_read` runs a plain function away from the event loop."""

    process: Engine
    database: Database
    run_read: Run
    answer_timeout_seconds: float = 30.0

    async def ask(self, command: Any, *, traceparent: str | None, find_out: str) -> Any:
        """The state that a command left, after its commit.

        Raises what the decision raises, and `Problem` when no answer comes in time; `find_out` says
        how the client learns what became of it.
        """
        try:
            async with asyncio.timeout(self.answer_timeout_seconds):
                return await self.process.ask(command, traceparent=traceparent)
        except TimeoutError:
            raise Problem(
                OUTCOME_UNKNOWN,
                f"No outcome after {self.answer_timeout_seconds:g} seconds; it may still be "
                f"carried out. {find_out}",
            ) from None
        except ProcessFailed:
            raise Problem(
                OUTCOME_UNKNOWN,
                f"The service has to end, and it is not known whether this was done. {find_out}",
            ) from None

    async def read(
        self, query: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """What a query finds in a snapshot of the database."""

        def run() -> R:
            with self.database.read() as connection:
                return query(connection, *args, **kwargs)

        found: R = await self.run_read(run)
        return found

"""Access from the routes to the engine (commands) and the database (queries)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import Connection

from todoku.database import Database
from todoku.engine import (
    Clock,
    Commits,
    EventTooLarge,
    IdempotencyKey,
    ProcessFailed,
    SharedTimeout,
)
from todoku.events import NO_CONTEXT, Context
from todoku.identity.keys import ApiKey
from todoku.web.idempotency import HEADER, next_key
from todoku.web.prefer_wait import Wait
from todoku.web.problems import BODY_TOO_LARGE, OUTCOME_UNKNOWN, Problem

P = ParamSpec("P")
R = TypeVar("R")
Run = Callable[..., Awaitable[Any]]


class Engine(Protocol):
    """The part of `todoku.engine.Process` that routes use."""

    database_available: bool
    clock: Clock
    commits: Commits

    @property
    def ready(self) -> bool:
        """Return whether commands are executed."""

    async def execute(
        self, command: Any, context: Context = NO_CONTEXT, key: IdempotencyKey | None = None
    ) -> Any:
        """Execute a command, once for its key, and return the resulting state after the commit."""

    def wait_for_end(self, key: str) -> asyncio.Future[None] | None:
        """Return a future that is done once an entity has ended; None if too many callers wait."""

    async def transact(self, change: Callable[[Connection], R]) -> R:
        """Run a function in a transaction of its own; return its result."""

    async def change_key(self, key: ApiKey) -> None:
        """Save an API key that was created or revoked, and publish it."""

    def resend_all(self) -> None:
        """Publish every pending delivery again."""


class Backend:
    """Engine and database of a service. `run_read` runs a function outside the event loop. While it is
    `draining`, a service about to stop answers but is not ready."""

    def __init__(
        self,
        *,
        process: Engine,
        database: Database,
        run_read: Run,
        response_timeout_seconds: float = 30.0,
    ) -> None:
        self.process = process
        self.database = database
        self.run_read = run_read
        self.draining = False
        self.response_timeout_seconds = response_timeout_seconds
        self._time_limit = SharedTimeout(response_timeout_seconds)

    async def execute(self, command: Any, *, context: Context, find_out: str) -> Any:
        """Execute a command and return the resulting state after the commit.

        Raises what the decision raises, and `Problem` if there is no result in time; `find_out`
        tells the client how to look up the result. If the request has an Idempotency-Key and was
        executed before, the result is that of the first time.
        """
        key = next_key()
        if key is not None:
            find_out = f"Send the request again with the same {HEADER}."
        try:
            return await self._time_limit.wait_for(self.process.execute(command, context, key))
        except TimeoutError:
            raise Problem(
                OUTCOME_UNKNOWN,
                f"No result after {self.response_timeout_seconds:g} seconds; the command may still be "
                f"executed. {find_out}",
            ) from None
        except EventTooLarge as error:
            raise Problem(
                BODY_TOO_LARGE,
                f"{error} Send less at a time, or raise `max_payload` of the broker.",
            ) from None
        except ProcessFailed:
            raise Problem(
                OUTCOME_UNKNOWN,
                f"The service is stopping; the command may or may not have been executed. {find_out}",
            ) from None

    async def wait_until_ended(
        self, key: str, wait: Wait, has_ended: Callable[[Connection, str], bool]
    ) -> bool:
        """Wait until the entity has ended, as long as the client wants; return False without waiting if
        too many others wait. `has_ended` tells if it ended before."""
        ending = self.process.wait_for_end(key)
        if ending is None:
            return False
        try:
            if not await self.read(has_ended, key):
                await wait.wait_for(ending)
        finally:
            ending.cancel()
        return True

    async def read(
        self, query: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run a query on a snapshot of the database and return its result."""

        def run() -> R:
            with self.database.read() as connection:
                return query(connection, *args, **kwargs)

        found: R = await self.run_read(run)
        return found

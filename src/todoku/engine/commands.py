"""Commands that are being executed, and the callers that wait for their results."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from todoku.database import Database
from todoku.engine.audit_log.requests import request_of_task
from todoku.engine.idempotency import (
    IdempotencyKey,
    KeptAnswer,
    RequestInProgress,
    rebuild_answer,
)
from todoku.engine.mailbox import Mailbox
from todoku.engine.messages import PendingCommand
from todoku.engine.pauses import PAUSE_COMMANDS
from todoku.engine.persons.commands import ErasePerson
from todoku.engine.relay import Run
from todoku.engine.service import Service
from todoku.events import Context

EXECUTED_ALONE: Final = frozenset((*PAUSE_COMMANDS, ErasePerson))
"""Commands that are in no batch."""


class Commands:
    """Puts commands into the mailbox and waits for their results."""

    def __init__(
        self,
        service: Service,
        mailbox: Mailbox,
        database: Database,
        *,
        run_read: Run,
        event_bytes_max: Callable[[], int | None],
    ) -> None:
        self._service = service
        self._mailbox = mailbox
        self._database = database
        self._run_read = run_read
        self._event_bytes_max = event_bytes_max
        # In the order of execution.
        self._unanswered: dict[asyncio.Future[Any], None] = {}
        self._keys_in_progress: set[str] = set()

    async def execute(self, command: Any, context: Context, key: IdempotencyKey | None) -> Any:
        """Execute a command and return its result, as `Process.execute` does."""
        if key is not None and key.id in self._keys_in_progress:
            raise RequestInProgress("The first request with this key is still being executed.")
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answer(result: object) -> None:
            if key is not None:
                self._keys_in_progress.discard(key.id)
            if answered.done():
                return
            if isinstance(result, Exception):
                answered.set_exception(result)
            else:
                answered.set_result(result)

        alone = type(command) in EXECUTED_ALONE
        put = self._mailbox.put_pause if alone else self._mailbox.put_command
        put(
            PendingCommand(
                command,
                answer,
                context,
                self._event_bytes_max(),
                key,
                request_of_task.get(),
            )
        )
        if key is not None:
            self._keys_in_progress.add(key.id)
        self._unanswered[answered] = None
        try:
            result = await answered
        finally:
            self._unanswered.pop(answered, None)
        if key is not None and isinstance(result, KeptAnswer):
            return await self._answer_again(result, key)
        return result

    async def execute_own(self, command: object) -> object:
        """Execute a command of the engine itself, which is never refused; return its result, which may
        be an error."""
        results: asyncio.Queue[object] = asyncio.Queue()
        self._mailbox.put_effect_result(PendingCommand(command, results.put_nowait))
        return await results.get()

    def fail(self, error: Exception) -> None:
        """Raise an error at every caller that waits."""
        for answered in self._unanswered:
            if not answered.done():
                answered.set_exception(error)

    async def _answer_again(self, kept: KeptAnswer, key: IdempotencyKey) -> Any:
        """Return or raise the result that a key has got before."""

        def rebuild() -> object:
            with self._database.read() as connection:
                return rebuild_answer(connection, kept, key, self._service.formats)

        result = await self._run_read(rebuild)
        if isinstance(result, Exception):
            raise result
        return result

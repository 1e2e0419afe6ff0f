"""Calls to the outside, made after the commit that asked for them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.mailbox import Mailbox
from todoku.engine.messages import PendingCommand

log = structlog.get_logger(__name__)


class Effects:
    """The calls that are under way. What comes back from one is a command, put into the mailbox.

    `have` makes the call for each type of effect. One that fails or takes longer than
    `seconds_max` leaves its claim to fall due again.
    """

    def __init__(
        self,
        have: Mapping[type[Any], Callable[[Any], Awaitable[Any]]],
        mailbox: Mailbox,
        *,
        seconds_max: float,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._have = have
        self._mailbox = mailbox
        self._seconds_max = seconds_max
        self._failpoint = failpoint
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, effect: Any) -> None:
        """Make the call, and do not wait for it."""
        task = asyncio.create_task(self._call(effect))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def finished(self) -> None:
        """Wait for the calls under way, no longer than each of them may take."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._seconds_max)

    def cancel(self) -> list[asyncio.Task[None]]:
        """Give up what is under way; the tasks that are ending by that."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._mailbox.wake()  # There is room again for what is due.

    async def _call(self, effect: Any) -> None:
        self._failpoint("before-effect")
        try:
            async with asyncio.timeout(self._seconds_max):
                command = await self._have[type(effect)](effect)
        except Exception as error:
            log.warning("a call outside failed, it will be made again", error=repr(error))
        else:
            self._failpoint("after-effect")
            self._mailbox.answer_effect(PendingCommand(command, _log_failure))


def _log_failure(result: Any) -> None:
    if isinstance(result, Exception):
        log.error("the outcome of a call outside could not be recorded", error=repr(result))

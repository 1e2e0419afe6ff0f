"""A time limit of many waits, with one timer for all of them."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")


class _Wait:
    """A task that waits. `cancellations` is how often it had been cancelled before."""

    __slots__ = ("cancellations", "ended", "task")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self.task = task
        self.cancellations = task.cancelling()
        self.ended = False

    def end(self) -> None:
        """End it, at its deadline."""
        self.ended = True
        self.task.cancel()


class SharedTimeout:
    """Bounds every wait by the same number of seconds, within one event loop.

    `asyncio.timeout` sets a timer for each wait and removes it, which costs more than most of the waits
    that it bounds. Here one timer runs until the earliest deadline of those that still wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[_Wait, float] = {}  # The earliest first.
        self._timer_runs = False

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Return the result of `awaitable`. Raises `TimeoutError` after the time, as `asyncio.timeout`
        does."""
        task = asyncio.current_task()
        assert task is not None
        wait = _Wait(task)
        deadline = asyncio.get_running_loop().time() + self._seconds
        self._deadlines[wait] = deadline
        if not self._timer_runs:
            self._run_timer(deadline)
        try:
            return await awaitable
        except asyncio.CancelledError as cancelled:
            # If somebody else has cancelled the task as well, it ends.
            if wait.ended and task.cancelling() == wait.cancellations + 1:
                raise TimeoutError from cancelled
            raise
        finally:
            self._deadlines.pop(wait, None)
            if wait.ended:
                task.uncancel()

    def _run_timer(self, until: float) -> None:
        self._timer_runs = True
        asyncio.get_running_loop().call_at(until, self._expire, until)

    def _expire(self, reached: float) -> None:
        """End the waits whose deadline is reached; run the timer until the next deadline."""
        self._timer_runs = False
        while self._deadlines:
            wait, deadline = next(iter(self._deadlines.items()))
            if deadline > reached:
                self._run_timer(deadline)
                return
            del self._deadlines[wait]
            wait.end()

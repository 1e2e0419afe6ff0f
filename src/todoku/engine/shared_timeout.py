"""A time limit of many waits, with one timer for all of them."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class SharedTimeout:
    """Bounds every wait by the same number of seconds, within one event loop.

    `asyncio.timeout` sets a timer for each wait and removes it, which costs more than most of the waits
    that it bounds. Here one timer runs until the earliest deadline of those that still wait.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[asyncio.Timeout, float] = {}  # The earliest first.
        self._timer_runs = False

    async def wait_for(self, awaitable: Awaitable[T]) -> T:
        """Return the result of `awaitable`. Raises `TimeoutError` after the time, as `asyncio.timeout`
        does."""
        async with asyncio.timeout(None) as timeout:
            deadline = asyncio.get_running_loop().time() + self._seconds
            self._deadlines[timeout] = deadline
            if not self._timer_runs:
                self._run_timer(deadline)
            try:
                return await awaitable
            finally:
                self._deadlines.pop(timeout, None)

    def _run_timer(self, until: float) -> None:
        self._timer_runs = True
        asyncio.get_running_loop().call_at(until, self._expire, until)

    def _expire(self, reached: float) -> None:
        """End the waits whose deadline is reached; run the timer until the next deadline."""
        self._timer_runs = False
        while self._deadlines:
            timeout, deadline = next(iter(self._deadlines.items()))
            if deadline > reached:
                self._run_timer(deadline)
                return
            del self._deadlines[timeout]
            timeout.reschedule(asyncio.get_running_loop().time())

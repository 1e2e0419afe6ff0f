"""Event loop with virtual time: time advances only when nothing is ready to run."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from todoku.engine.clock import Correction

T = TypeVar("T")

START = datetime(2030, 1, 1, tzinfo=UTC)
"""When every simulation begins."""

ROUNDS_MAX = 10_000
"""How many iterations the loop may run while no time passes; more is an endless loop."""


class Stuck(Exception):
    """The simulation makes no progress: nothing is scheduled, or something loops without end."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Run callbacks in the order in which they became ready; waiting takes no real time."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        return self._seconds

    def _pass(self, seconds: float | None) -> None:
        if seconds is None:
            raise Stuck("nothing is scheduled, and a task waits for ever")
        self._seconds += seconds


class _Selector(selectors.SelectSelector):
    """Advance the virtual time instead of waiting for sockets, of which there are none."""

    def __init__(self, passing: Callable[[float | None], None]) -> None:
        super().__init__()
        self._passing = passing
        self._rounds = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            self._rounds = 0
            self._passing(timeout)
            return []
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            self._rounds = 0
            raise Stuck("a task loops without end while no time passes")
        return []


class VirtualClock:
    """The wall clock of a simulated machine, `offset_seconds` ahead of the virtual time."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self._start = START + timedelta(seconds=offset_seconds)
        self._loop = asyncio.get_running_loop()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())

    def correction(self) -> Correction | None:
        return None


def run(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and the tasks that it starts, in virtual time. Raises `Stuck`."""
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

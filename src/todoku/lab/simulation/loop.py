"""An event loop whose time passes only when nothing is left to do."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")

START = datetime(2030, 1, 1, tzinfo=UTC)
"""When every simulation begins."""

ROUNDS_MAX = 10_000
"""How often the loop may go round while no time passes: beyond that somebody runs in circles."""


class Stuck(Exception):
    """The simulated world will never get anywhere."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready in the order in which it became so; waiting costs no real time."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__(_Selector(self._pass))

    def time(self) -> float:
        return self._seconds

    def _pass(self, seconds: float | None) -> None:
        if seconds is None:
            raise Stuck("nothing is left to do, and somebody waits for ever")
        self._seconds += seconds


class _Selector(selectors.SelectSelector):
    """Instead of waiting for sockets, which there are none of, lets the time pass."""

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
            raise Stuck("somebody runs in circles while no time passes")
        return []


class VirtualClock:
    """The wall clock of a simulated machine, off by `offset_seconds` from the world's time."""

    def __init__(self, offset_seconds: float = 0.0) -> None:
        self._start = START + timedelta(seconds=offset_seconds)
        self._loop = asyncio.get_running_loop()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.time())


def run(loop: VirtualLoop, main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and all that it starts, in virtual time. Raises `Stuck`."""
    try:
        return loop.run_until_complete(main)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

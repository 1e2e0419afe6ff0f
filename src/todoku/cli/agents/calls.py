"""Run what waits for services in threads for which nobody has to wait."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import Final, ParamSpec, TypeVar

CALLS_MAX: Final = 16
"""How many calls run at a time; more wait."""

STOP_SECONDS_MAX: Final = 1.0
"""How long a stop waits for the calls that are under way."""

P = ParamSpec("P")
T = TypeVar("T")


class CallStopped(Exception):
    """The server was stopped while a call was under way: whether it was processed is unknown."""


class Calls:
    """The calls that are under way. Soon after `stop` is set, those that have not ended are given up: their
    threads end with the process."""

    def __init__(self, stop: asyncio.Event | None = None) -> None:
        self._stop = stop or asyncio.Event()
        self._slots = asyncio.Semaphore(CALLS_MAX)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what a function returns in a thread. Raises `CallStopped`."""

        def call() -> T:
            return function(*args, **kwargs)

        running = asyncio.create_task(self._run(call))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((running,), timeout=STOP_SECONDS_MAX)
            if not running.done():
                raise CallStopped
            return running.result()
        finally:
            running.cancel()
            stopping.cancel()

    async def _run(self, function: Callable[[], T]) -> T:
        await self._slots.acquire()
        result: Future[T] = Future()
        # Also a call that was given up keeps its place until it has ended.
        result.add_done_callback(partial(self._free_slot, asyncio.get_running_loop()))
        Thread(target=copy_context().run, args=(_complete, result, function), daemon=True).start()
        return await asyncio.wrap_future(result)

    def _free_slot(self, loop: asyncio.AbstractEventLoop, _: "Future[T]") -> None:
        with suppress(RuntimeError):  # The loop has ended.
            loop.call_soon_threadsafe(self._slots.release)


def _complete(result: "Future[T]", function: Callable[[], T]) -> None:
    """Call a function, and set what it returns or raises as the result."""
    # From here on, cancelling the future has no effect.
    if not result.set_running_or_notify_cancel():
        return
    try:
        result.set_result(function())
    except BaseException as error:
        result.set_exception(error)

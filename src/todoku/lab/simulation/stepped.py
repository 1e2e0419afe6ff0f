"""Runs plain functions that wait in virtual time: in a thread, strictly in turn with the event loop.

The code of a transaction is plain and synchronous. To stop it between two statements while other
processes continue, it runs in a thread of its own. Either that thread runs or the event loop does, never
both; so the order of execution is still that of the event loop, and a seed repeats a run.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_here = threading.local()


def can_wait() -> bool:
    """Return whether this code runs in a `SteppedThread`."""
    return hasattr(_here, "thread")


def wait(awaitable: Awaitable[T]) -> T:
    """Wait for something of the event loop, which runs meanwhile. For code in a `SteppedThread`.

    Raises what that raises: `CancelledError` if the caller of `run` is cancelled.
    """
    thread: SteppedThread = _here.thread
    result: T = thread.suspend(awaitable)
    return result


class SteppedThread:
    """A thread for functions that `wait`; close it at the end."""

    def __init__(self) -> None:
        self._to_thread: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._to_loop: SimpleQueue[Awaitable[Any] | Callable[[], Any]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._busy = False

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function until it ends, and whatever is ready in the event loop while it waits. One at
        a time."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._serve, args=(loop,), daemon=True)
            self._thread.start()
        self._busy = True
        self._to_thread.put(partial(function, *arguments))
        while True:
            received = self._to_loop.get()  # The event loop stands still until the thread stops.
            if callable(received):
                self._busy = False
                return received()
            try:
                result = await received
            except BaseException as error:
                self._to_thread.put(partial(_raise, error))
            else:
                self._to_thread.put(partial(_return, result))

    def close(self) -> None:
        """End the thread, and the function in it."""
        if self._thread is None:
            return
        while self._busy:
            self._to_thread.put(partial(_raise, asyncio.CancelledError()))
            self._busy = not callable(self._to_loop.get())
        self._to_thread.put(None)
        self._thread.join()
        self._thread = None

    def suspend(self, awaitable: Awaitable[Any]) -> Any:
        """Hand an awaitable to the event loop, and stop until it has ended."""
        self._to_loop.put(awaitable)
        resume = self._to_thread.get()
        assert resume is not None
        return resume()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        _here.thread = self
        # What runs here belongs to the event loop, which stands still meanwhile.
        asyncio._set_running_loop(loop)
        while (function := self._to_thread.get()) is not None:
            try:
                result = function()
            except BaseException as error:
                self._to_loop.put(partial(_raise, error))
            else:
                self._to_loop.put(partial(_return, result))


def _raise(error: BaseException) -> None:
    raise error


def _return(result: T) -> T:
    return result

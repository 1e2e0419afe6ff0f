"""Coroutines in virtual time: an hour passes at once, and always in the same order."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from todoku.lab.simulation.loop import START, VirtualClock, VirtualLoop
from todoku.lab.simulation.loop import run as run_on

T = TypeVar("T")

__all__ = ["START", "VirtualClock", "inline", "run", "until"]


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and all that it starts, in virtual time."""
    return run_on(VirtualLoop(), main)


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function here and now."""
    return function(*arguments)


async def until(
    condition: Callable[[], bool], seconds: float = 600.0, every_seconds: float = 0.01
) -> None:
    """Wait until `condition()` holds; fail after `seconds` of virtual time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing signals what is looked at from outside
            await asyncio.sleep(every_seconds)

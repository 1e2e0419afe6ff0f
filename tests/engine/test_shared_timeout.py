"""One timer bounds many waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from todoku.engine import SharedTimeout
from todoku.engine.testing.virtual_time import VirtualLoop, run


def in_virtual_time(scenario: Coroutine[Any, Any, None]) -> None:
    run(VirtualLoop(), scenario)


async def ending_of(limit: SharedTimeout, seconds: float) -> tuple[bool, float]:
    """Return whether a wait of these seconds ended in time, and when it ended."""
    loop = asyncio.get_running_loop()
    try:
        await limit.wait_for(asyncio.sleep(seconds))
    except TimeoutError:
        return False, loop.time()
    return True, loop.time()


def test_each_wait_ends_at_its_own_deadline() -> None:
    async def scenario() -> None:
        limit = SharedTimeout(10.0)
        waits = [asyncio.create_task(ending_of(limit, 60.0))]
        await asyncio.sleep(4.0)
        waits += [asyncio.create_task(ending_of(limit, seconds)) for seconds in (60.0, 3.0)]
        assert await asyncio.gather(*waits) == [(False, 10.0), (False, 14.0), (True, 7.0)]
        assert await ending_of(limit, 20.0) == (False, 24.0)

    in_virtual_time(scenario())


def test_wait_that_takes_no_time_is_not_ended_by_its_deadline() -> None:
    async def scenario() -> None:
        limit = SharedTimeout(1.0)
        assert await ending_of(limit, 0.0) == (True, 0.0)
        await asyncio.sleep(0.5)
        assert await ending_of(limit, 0.9) == (True, 1.4)

    in_virtual_time(scenario())


def test_cancelled_wait_is_cancelled_and_error_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("as it is")

    async def scenario() -> None:
        limit = SharedTimeout(1.0)
        wait = asyncio.create_task(limit.wait_for(asyncio.Event().wait()))
        await asyncio.sleep(0.5)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        with pytest.raises(ValueError, match="as it is"):
            await limit.wait_for(fail())
        await asyncio.sleep(2.0)  # The deadlines of ended waits pass.

    in_virtual_time(scenario())


def test_task_that_is_cancelled_at_its_deadline_ends() -> None:
    async def scenario() -> None:
        limit = SharedTimeout(1.0)
        wait = asyncio.create_task(limit.wait_for(asyncio.Event().wait()))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_at(
            1.0, wait.cancel
        )  # In the turn in which the limit ends it.
        with pytest.raises(asyncio.CancelledError):
            await wait

    in_virtual_time(scenario())


def test_outer_limit_counts_a_wait_that_its_inner_limit_has_ended() -> None:
    async def scenario() -> None:
        inner, outer = SharedTimeout(1.0), SharedTimeout(3.0)

        async def wait_twice() -> None:
            with pytest.raises(TimeoutError):
                await inner.wait_for(asyncio.Event().wait())
            await asyncio.Event().wait()

        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            await outer.wait_for(wait_twice())
        assert (asyncio.get_running_loop().time(), task.cancelling()) == (3.0, 0)

    in_virtual_time(scenario())


def test_wait_that_goes_on_after_its_deadline_leaves_no_cancellation_behind() -> None:
    async def scenario() -> None:
        async def go_on() -> str:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.Event().wait()
            return "result"

        task = asyncio.current_task()
        assert task is not None
        assert await SharedTimeout(1.0).wait_for(go_on()) == "result"
        assert task.cancelling() == 0

    in_virtual_time(scenario())

"""Tests of the profiler of stages."""

import asyncio
import threading
import time
from pkgutil import resolve_name

import pytest

from bench import stages
from bench.stages import IN_SQL, SQL, STAGES, Clock, timed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(Clock, "clocks", [])
    clock = Clock()
    monkeypatch.setattr(stages, "_clock", clock)
    return clock


def work(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def spent(clock: Clock, stage: str) -> float:
    return clock.spent[stage] / 1e9


@pytest.mark.parametrize("name", [name for names in (*STAGES.values(), SQL) for name in names])
def test_stage_names_existing_functions(name: str) -> None:
    assert callable(resolve_name(name))


def test_time_counts_for_innermost_stage(clock: Clock) -> None:
    inner = timed("inner", lambda: work(0.02))

    def outer() -> None:
        work(0.01)
        inner()
        work(0.01)

    timed("outer", outer)()
    assert spent(clock, "inner") == pytest.approx(0.02, abs=0.005)
    assert spent(clock, "outer") == pytest.approx(0.02, abs=0.005)


def test_database_time_counts_for_calling_stage(clock: Clock) -> None:
    ask = timed(IN_SQL, lambda: work(0.01))
    timed("saving", ask)()
    assert spent(clock, "saving" + IN_SQL) == pytest.approx(0.01, abs=0.005)


def test_waiting_coroutine_counts_no_time(clock: Clock) -> None:
    async def wait(go_on: asyncio.Event) -> str:
        work(0.01)
        await go_on.wait()
        work(0.01)
        return "done"

    async def run() -> str:
        go_on = asyncio.Event()
        task = asyncio.create_task(timed("waiting", wait)(go_on))
        await asyncio.sleep(0)
        timed("meanwhile", lambda: work(0.02))()
        go_on.set()
        result: str = await task
        return result

    assert asyncio.run(run()) == "done"
    assert spent(clock, "waiting") == pytest.approx(0.02, abs=0.005)
    assert spent(clock, "meanwhile") == pytest.approx(0.02, abs=0.005)


def test_exception_is_thrown_into_coroutine(clock: Clock) -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def run() -> None:
        async with asyncio.timeout(0.01):
            await timed("waiting", wait)()

    with pytest.raises(TimeoutError):
        asyncio.run(run())
    assert clock.stage == stages.REST


def test_each_thread_has_its_own_clock(clock: Clock) -> None:
    thread = threading.Thread(target=timed("elsewhere", lambda: work(0.01)))
    thread.start()
    thread.join()
    assert len(Clock.clocks) == 2
    assert sum(spent["elsewhere"] for spent in Clock.clocks) / 1e9 == pytest.approx(0.01, abs=0.005)
    assert "elsewhere" not in clock.spent

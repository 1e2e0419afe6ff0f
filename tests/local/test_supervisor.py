"""Tests of the supervisor on small real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from todoku.local.supervisor import Backoff, Checkup, ProcessRunner, Program, Supervisor

BOUND_SECONDS = 30.0

STEADY = """
import os, signal, sys
def stop(*_):
    os.write(1, b"goodbye\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
os.write(1, b"hello\\n")
while True: signal.pause()
"""
"""It writes past Python's buffer, which a handler must not enter while `hello` is on its way."""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("hello", flush=True)
while True: signal.pause()
"""
QUICK_BACKOFF = Backoff(first_seconds=0.01, longest_seconds=0.08)


class Recorder:
    """Records every message and every line of output, and waits for them."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.shown: list[tuple[str, bytes]] = []
        self._news = asyncio.Event()

    def say(self, text: str) -> None:
        self.messages.append(text)
        self._news.set()

    def show(self, name: str, line: bytes) -> None:
        self.shown.append((name, line))
        self._news.set()

    def count(self, text: str) -> int:
        return sum(text in sentence for sentence in self.messages)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    def program(
        self, name: str, code: str, *, ready: bool | None = None, final_codes: tuple[int, ...] = ()
    ) -> Program:
        """A program in Python; ready when it has printed hello, unless told otherwise."""

        async def is_ready() -> bool:
            return (name, b"hello") in self.shown if ready is None else ready

        return Program(
            name=name,
            argv=(sys.executable, "-I", "-S", "-c", code),
            environment=os.environ,
            is_ready=is_ready,
            final_codes=final_codes,
        )

    def supervisor(
        self,
        *stages: list[Program],
        grace_seconds: float = BOUND_SECONDS,
        backoff: Backoff = QUICK_BACKOFF,
    ) -> Supervisor:
        return Supervisor(
            stages, grace_seconds=grace_seconds, say=self.say, show=self.show, backoff=backoff
        )


def runner_of(supervisor: Supervisor, name: str) -> ProcessRunner:
    return next(runner for runner in supervisor.runners if runner.name == name)


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = runner_of(supervisor, name).pid
    assert pid is not None
    return pid


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() if sys.platform == "linux" else _answers(pid)


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def supervised(
    supervisor: Supervisor, story: Callable[[asyncio.Event], Coroutine[Any, Any, None]]
) -> Coroutine[Any, Any, bool]:
    """Run the supervisor during `story`, then stop it; return whether it ended without SIGKILL."""

    async def tell() -> bool:
        stop = asyncio.Event()
        async with asyncio.timeout(BOUND_SECONDS), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervisor.run(stop))
            await story(stop)
            stop.set()
        return running.result()

    return tell()


def test_last_stage_stops_before_first() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        first, second = recorder.program("first", STEADY), recorder.program("second", STEADY)
        supervisor = recorder.supervisor([first], [second])
        pids: list[int] = []

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            assert supervisor.not_ready == []
            pids.extend(pid_of(supervisor, name) for name in ("first", "second"))

        assert await supervised(supervisor, story)
        assert recorder.messages == []
        farewells = [name for name, line in recorder.shown if line == b"goodbye"]
        assert farewells == ["second", "first"]
        assert not any(is_alive(pid) for pid in pids)

    asyncio.run(scenario())


def test_nothing_waits_for_a_program_that_is_not_awaited() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        companion = msgspec.structs.replace(
            recorder.program("companion", STEADY, ready=False), awaited=False
        )
        supervisor = recorder.supervisor([recorder.program("main", STEADY), companion])
        stop = asyncio.Event()
        running = asyncio.create_task(supervisor.run(stop))
        await supervisor.all_ready()
        assert supervisor.not_ready == []
        await recorder.until(lambda: ("companion", b"hello") in recorder.shown)
        assert recorder.shown.index(("main", b"hello")) < recorder.shown.index(
            ("companion", b"hello")
        )
        stop.set()
        assert await running
        assert ("companion", b"goodbye") in recorder.shown

    asyncio.run(scenario())


def test_program_has_its_own_session() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor([recorder.program("one", STEADY)])

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            pid = pid_of(supervisor, "one")
            assert os.getsid(pid) == os.getpgid(pid) == pid

        await supervised(supervisor, story)

    asyncio.run(scenario())


def test_killed_program_is_restarted() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor(
            [recorder.program("one", STEADY), recorder.program("other", STEADY)]
        )

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            before, neighbour = pid_of(supervisor, "one"), pid_of(supervisor, "other")
            os.kill(before, signal.SIGKILL)
            await recorder.until(lambda: recorder.count("one is ready again") == 1)
            assert pid_of(supervisor, "one") != before
            assert pid_of(supervisor, "other") == neighbour

        assert await supervised(supervisor, story)
        assert recorder.messages[0] == (
            "one was ended by signal 9 (Killed); starting it again in 0.01 s"
        )

    asyncio.run(scenario())


def test_backoff_doubles_for_program_that_keeps_ending() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor(
            [recorder.program("one", "raise SystemExit(3)", ready=False)]
        )

        async def story(_: asyncio.Event) -> None:
            await recorder.until(lambda: len(recorder.messages) == 5)

        assert await supervised(supervisor, story)
        assert recorder.messages[:5] == [
            f"one ended with exit code 3; starting it again in {delay} s"
            for delay in ("0.01", "0.02", "0.04", "0.08", "0.08")
        ]

    asyncio.run(scenario())


def test_final_exit_code_ends_all_programs() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        code = "print('the disk is of a newer version'); raise SystemExit(3)"
        supervisor = recorder.supervisor(
            [recorder.program("other", STEADY)],
            [recorder.program("one", code, ready=False, final_codes=(2, 3))],
        )

        async with asyncio.timeout(BOUND_SECONDS):
            assert await supervisor.run(asyncio.Event())

        assert supervisor.final_code == 3
        assert recorder.messages == [
            "one ended with exit code 3, and would again;"
            " last output: the disk is of a newer version"
        ]
        assert all(runner.pid is None for runner in supervisor.runners)

    asyncio.run(scenario())


def test_program_that_was_ready_is_restarted_after_any_exit_code() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        code = STEADY.replace("sys.exit(0)", "sys.exit(3)")
        supervisor = recorder.supervisor([recorder.program("one", code, final_codes=(3,))])

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            os.kill(pid_of(supervisor, "one"), signal.SIGTERM)
            await recorder.until(lambda: recorder.count("ended with exit code 3; starting") == 1)

        assert await supervised(supervisor, story)
        assert supervisor.final_code is None

    asyncio.run(scenario())


def test_failed_preparation_is_retried() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        starts = iter([OSError(28, "No space left on device"), None])

        def prepare() -> None:
            if refusal := next(starts):
                raise refusal

        steady = recorder.program("one", STEADY)
        program = Program(steady.name, steady.argv, steady.environment, steady.is_ready, prepare)
        supervisor = recorder.supervisor([program])

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()

        assert await supervised(supervisor, story)
        assert "one could not be started (No space left on device)" in recorder.messages[0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("diagnoses", "remedies"),
    [
        (["a cough", None, "it is stuck", "it is stuck"], []),
        (["it is stuck", "it is stuck"], ["one: it was given a pill"]),
    ],
    ids=["well at first", "never well"],
)
def test_program_that_fails_its_checkup_is_restarted(
    diagnoses: list[str | None], remedies: list[str]
) -> None:
    """After enough failed checks in a row; with the remedy if no check has passed."""

    async def scenario() -> None:
        recorder = Recorder()
        found = iter(diagnoses)

        async def diagnosis() -> str | None:
            return next(found, None)

        checkup = Checkup(diagnosis, lambda: "it was given a pill", every_seconds=0.01, in_a_row=2)
        # It would not hear a SIGTERM.
        program = msgspec.structs.replace(recorder.program("one", STUBBORN), checkup=checkup)
        supervisor = recorder.supervisor([program], grace_seconds=0.05)

        async def story(_: asyncio.Event) -> None:
            await recorder.until(lambda: recorder.count("one is ready again") == 1)

        await supervised(supervisor, story)
        assert next(found, None) is None
        assert [each for each in recorder.messages if "stopped within" not in each][:-1] == [
            "one runs but does not work: it is stuck; killing it",
            "one was ended by signal 9 (Killed); starting it again in 0.01 s",
            *remedies,
        ]

    asyncio.run(scenario())


def test_program_that_does_not_stop_in_time_is_killed() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor([recorder.program("one", STUBBORN)], grace_seconds=0.05)

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()

        assert not await supervised(supervisor, story)
        assert recorder.messages == ["one has not stopped within 0.05 s; killing it"]

    asyncio.run(scenario())


def test_hurry_skips_the_grace_period() -> None:
    """The grace is longer than the test may take."""

    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor(
            [recorder.program("one", STUBBORN)],
            [recorder.program("two", STUBBORN)],
            grace_seconds=100 * BOUND_SECONDS,
        )

        async def story(stop: asyncio.Event) -> None:
            await supervisor.all_ready()
            stop.set()
            supervisor.hurry()

        assert not await supervised(supervisor, story)
        assert recorder.messages == [
            "two has not stopped; killing it",
            "one has not stopped; killing it",
        ]

    asyncio.run(scenario())


def test_stop_before_start() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor([recorder.program("one", STEADY)])

        async def story(stop: asyncio.Event) -> None:
            stop.set()

        assert await supervised(supervisor, story)

    asyncio.run(scenario())


def test_stop_while_programs_start() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        supervisor = recorder.supervisor([recorder.program("one", STEADY, ready=False)])

        async def story(_: asyncio.Event) -> None:
            await recorder.until(lambda: ("one", b"hello") in recorder.shown)
            assert supervisor.not_ready == ["one"]

        assert await supervised(supervisor, story)

    asyncio.run(scenario())


def test_stop_during_backoff() -> None:
    """The wait is longer than the test may take."""

    async def scenario() -> None:
        recorder = Recorder()
        long_wait = Backoff(first_seconds=100 * BOUND_SECONDS, longest_seconds=1000 * BOUND_SECONDS)
        supervisor = recorder.supervisor(
            [recorder.program("one", "", ready=False)], backoff=long_wait
        )

        async def story(_: asyncio.Event) -> None:
            await recorder.until(lambda: recorder.count("starting it again") == 1)

        assert await supervised(supervisor, story)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("b'a\\nb'", [b"a", b"b"]),
        ("b'\\xff\\n'", [b"\xff"]),
        ("b'x' * 100_000 + b'\\ny\\n'", [b"x" * 100_000, b"y"]),
    ],
)
def test_every_line_of_output_is_shown(written: str, shown: list[bytes]) -> None:
    async def scenario() -> None:
        recorder = Recorder()
        code = f"import sys; sys.stderr.buffer.write({written})"
        supervisor = recorder.supervisor(
            [recorder.program("one", code, ready=False)],
            backoff=Backoff(first_seconds=BOUND_SECONDS),
        )

        async def story(_: asyncio.Event) -> None:
            await recorder.until(lambda: recorder.count("ended with exit code 0") == 1)

        await supervised(supervisor, story)
        assert [line for _, line in recorder.shown] == shown

    asyncio.run(scenario())


def test_endless_line_is_shown_in_pieces() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        code = "import sys\nwhile True: sys.stdout.buffer.write(b'x' * 2**16)"
        supervisor = recorder.supervisor([recorder.program("one", code, ready=False)])

        async def story(_: asyncio.Event) -> None:
            await recorder.until(lambda: len(recorder.shown) == 2)

        await supervised(supervisor, story)

    asyncio.run(scenario())


def test_delay_doubles_up_to_limit() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=10)

    assert [backoff.delay_seconds(n) for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


def test_stable_run_resets_the_delay() -> None:
    backoff = Backoff(stable_seconds=30)

    assert backoff.short_runs(7, ran_seconds=29.9) == 8
    assert backoff.short_runs(7, ran_seconds=30.0) == 1

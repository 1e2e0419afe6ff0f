"""The supervisor, on real and small processes."""

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
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("goodbye", flush=True)))
print("hello", flush=True)
while True: signal.pause()
"""
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("hello", flush=True)
while True: signal.pause()
"""
QUICK_BACKOFF = Backoff(first_seconds=0.01, longest_seconds=0.08)


class Witness:
    """Hears everything that is said and shown, and waits for it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[tuple[str, bytes]] = []
        self._news = asyncio.Event()

    def say(self, text: str) -> None:
        self.said.append(text)
        self._news.set()

    def show(self, name: str, line: bytes) -> None:
        self.shown.append((name, line))
        self._news.set()

    def count(self, text: str) -> int:
        return sum(text in sentence for sentence in self.said)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    def program(
        self, name: str, code: str, *, ready: bool | None = None, final_codes: tuple[int, ...] = ()
    ) -> Program:
        """A program in Python; ready when it has said hello, unless told otherwise."""

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
    return next(keeper for keeper in supervisor.runners if keeper.name == name)


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
    """Let the supervisor run while `story` happens, then stop it; return whether it was unforced."""

    async def tell() -> bool:
        stop = asyncio.Event()
        async with asyncio.timeout(BOUND_SECONDS), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(supervisor.run(stop))
            await story(stop)
            stop.set()
        return running.result()

    return tell()


def test_all_run_until_stopped_and_the_last_stage_ends_before_the_first() -> None:
    async def scenario() -> None:
        witness = Witness()
        first, second = witness.program("first", STEADY), witness.program("second", STEADY)
        supervisor = witness.supervisor([first], [second])
        pids: list[int] = []

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            assert supervisor.not_ready == []
            pids.extend(pid_of(supervisor, name) for name in ("first", "second"))

        assert await supervised(supervisor, story)
        assert witness.said == []
        farewells = [name for name, line in witness.shown if line == b"goodbye"]
        assert farewells == ["second", "first"]
        assert not any(is_alive(pid) for pid in pids)

    asyncio.run(scenario())


def test_a_program_has_a_session_of_its_own_so_that_the_terminals_ctrl_c_passes_it_by() -> None:
    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor([witness.program("one", STEADY)])

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            pid = pid_of(supervisor, "one")
            assert os.getsid(pid) == os.getpgid(pid) == pid

        await supervised(supervisor, story)

    asyncio.run(scenario())


def test_a_program_that_is_killed_is_started_again_and_both_are_said() -> None:
    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor(
            [witness.program("one", STEADY), witness.program("other", STEADY)]
        )

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            before, neighbour = pid_of(supervisor, "one"), pid_of(supervisor, "other")
            os.kill(before, signal.SIGKILL)
            await witness.until(lambda: witness.count("one is ready again") == 1)
            assert pid_of(supervisor, "one") != before
            assert pid_of(supervisor, "other") == neighbour

        assert await supervised(supervisor, story)
        assert witness.said[0] == (
            "one was ended by signal 9 (Killed); starting it again in 0.01 s"
        )

    asyncio.run(scenario())


def test_a_program_that_ends_again_and_again_is_started_less_and_less_often() -> None:
    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor(
            [witness.program("one", "raise SystemExit(3)", ready=False)]
        )

        async def story(_: asyncio.Event) -> None:
            await witness.until(lambda: len(witness.said) == 5)

        assert await supervised(supervisor, story)
        assert witness.said[:5] == [
            f"one ended with exit code 3; starting it again in {delay} s"
            for delay in ("0.01", "0.02", "0.04", "0.08", "0.08")
        ]

    asyncio.run(scenario())


def test_a_program_that_could_never_serve_ends_everything_with_its_reason() -> None:
    async def scenario() -> None:
        witness = Witness()
        code = "print('the disk is of a newer version'); raise SystemExit(3)"
        supervisor = witness.supervisor(
            [witness.program("other", STEADY)],
            [witness.program("one", code, ready=False, final_codes=(2, 3))],
        )

        async with asyncio.timeout(BOUND_SECONDS):
            assert await supervisor.run(asyncio.Event())

        assert supervisor.final_code == 3
        assert witness.said == [
            "one ended with exit code 3, and would again;"
            " it said last: the disk is of a newer version"
        ]
        assert all(keeper.pid is None for keeper in supervisor.runners)

    asyncio.run(scenario())


def test_what_has_served_before_is_started_again_whatever_its_exit_code() -> None:
    async def scenario() -> None:
        witness = Witness()
        code = STEADY.replace('print("goodbye", flush=True)', "3")
        supervisor = witness.supervisor([witness.program("one", code, final_codes=(3,))])

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()
            os.kill(pid_of(supervisor, "one"), signal.SIGTERM)
            await witness.until(lambda: witness.count("ended with exit code 3; starting") == 1)

        assert await supervised(supervisor, story)
        assert supervisor.final_code is None

    asyncio.run(scenario())


def test_a_program_is_prepared_before_each_start_and_a_failure_of_that_is_tried_again() -> None:
    async def scenario() -> None:
        witness = Witness()
        starts = iter([OSError(28, "No space left on device"), None])

        def prepare() -> None:
            if refusal := next(starts):
                raise refusal

        steady = witness.program("one", STEADY)
        program = Program(steady.name, steady.argv, steady.environment, steady.is_ready, prepare)
        supervisor = witness.supervisor([program])

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()

        assert await supervised(supervisor, story)
        assert "one could not be started (No space left on device)" in witness.said[0]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("ailments", "remedies"),
    [
        (["a cough", None, "it is stuck", "it is stuck"], []),
        (["it is stuck", "it is stuck"], ["one: it was given a pill"]),
    ],
    ids=["well at first", "never well"],
)
def test_a_program_that_runs_and_does_not_work_is_killed_and_started_again(
    ailments: list[str | None], remedies: list[str]
) -> None:
    """Only when it ails as often in a row as its checkup says; with a remedy if it never was well."""

    async def scenario() -> None:
        witness = Witness()
        found = iter(ailments)

        async def diagnosis() -> str | None:
            return next(found, None)

        checkup = Checkup(diagnosis, lambda: "it was given a pill", every_seconds=0.01, in_a_row=2)
        # It would not hear a SIGTERM.
        program = msgspec.structs.replace(witness.program("one", STUBBORN), checkup=checkup)
        supervisor = witness.supervisor([program], grace_seconds=0.05)

        async def story(_: asyncio.Event) -> None:
            await witness.until(lambda: witness.count("one is ready again") == 1)

        await supervised(supervisor, story)
        assert next(found, None) is None
        assert [said for said in witness.said if "stopped within" not in said][:-1] == [
            "one runs but does not work: it is stuck; killing it",
            "one was ended by signal 9 (Killed); starting it again in 0.01 s",
            *remedies,
        ]

    asyncio.run(scenario())


def test_a_program_that_does_not_stop_in_time_is_killed_and_that_is_said() -> None:
    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor([witness.program("one", STUBBORN)], grace_seconds=0.05)

        async def story(_: asyncio.Event) -> None:
            await supervisor.all_ready()

        assert not await supervised(supervisor, story)
        assert witness.said == ["one has not stopped within 0.05 s; killing it"]

    asyncio.run(scenario())


def test_in_a_hurry_nothing_is_waited_for() -> None:
    """The grace is longer than the test may take."""

    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor(
            [witness.program("one", STUBBORN)],
            [witness.program("two", STUBBORN)],
            grace_seconds=100 * BOUND_SECONDS,
        )

        async def story(stop: asyncio.Event) -> None:
            await supervisor.all_ready()
            stop.set()
            supervisor.hurry()

        assert not await supervised(supervisor, story)
        assert witness.said == [
            "two has not stopped; killing it",
            "one has not stopped; killing it",
        ]

    asyncio.run(scenario())


def test_it_can_be_stopped_before_anything_has_started() -> None:
    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor([witness.program("one", STEADY)])

        async def story(stop: asyncio.Event) -> None:
            stop.set()

        assert await supervised(supervisor, story)

    asyncio.run(scenario())


def test_it_can_be_stopped_while_programs_are_starting() -> None:
    async def scenario() -> None:
        witness = Witness()
        supervisor = witness.supervisor([witness.program("one", STEADY, ready=False)])

        async def story(_: asyncio.Event) -> None:
            await witness.until(lambda: ("one", b"hello") in witness.shown)
            assert supervisor.not_ready == ["one"]

        assert await supervised(supervisor, story)

    asyncio.run(scenario())


def test_it_can_be_stopped_while_a_program_waits_to_be_started_again() -> None:
    """The wait is longer than the test may take."""

    async def scenario() -> None:
        witness = Witness()
        long_wait = Backoff(first_seconds=100 * BOUND_SECONDS, longest_seconds=1000 * BOUND_SECONDS)
        supervisor = witness.supervisor(
            [witness.program("one", "", ready=False)], backoff=long_wait
        )

        async def story(_: asyncio.Event) -> None:
            await witness.until(lambda: witness.count("starting it again") == 1)

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
def test_every_line_that_a_program_writes_is_shown_also_the_last_words(
    written: str, shown: list[bytes]
) -> None:
    async def scenario() -> None:
        witness = Witness()
        code = f"import sys; sys.stderr.buffer.write({written})"
        supervisor = witness.supervisor(
            [witness.program("one", code, ready=False)],
            backoff=Backoff(first_seconds=BOUND_SECONDS),
        )

        async def story(_: asyncio.Event) -> None:
            await witness.until(lambda: witness.count("ended with exit code 0") == 1)

        await supervised(supervisor, story)
        assert [line for _, line in witness.shown] == shown

    asyncio.run(scenario())


def test_a_line_without_end_is_shown_in_pieces() -> None:
    async def scenario() -> None:
        witness = Witness()
        code = "import sys\nwhile True: sys.stdout.buffer.write(b'x' * 2**16)"
        supervisor = witness.supervisor([witness.program("one", code, ready=False)])

        async def story(_: asyncio.Event) -> None:
            await witness.until(lambda: len(witness.shown) == 2)

        await supervised(supervisor, story)

    asyncio.run(scenario())


def test_the_wait_doubles_up_to_a_limit() -> None:
    backoff = Backoff(first_seconds=1, longest_seconds=10)

    assert [backoff.delay_seconds(n) for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


def test_a_stable_life_makes_the_wait_begin_anew() -> None:
    backoff = Backoff(stable_seconds=30)

    assert backoff.short_lives(7, lived_seconds=29.9) == 8
    assert backoff.short_lives(7, lived_seconds=30.0) == 1

"""Supervises programs: starts them, restarts those that end or do not work, stops them in order."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec

TETHER = Path(__file__).with_name("tether.py")
READY_POLL_SECONDS = 0.05
OUTPUT_CHUNK_BYTES = 2**16
OUTPUT_LINE_BYTES_MAX = 2**20
LAST_OUTPUT_SECONDS = 1.0

OTHERS_READY_SECONDS = 5.0
"""How long a program that is not awaited waits for the others, so that they start sooner."""


class NotPrepared(Exception):
    """Raised by what is called before a start, if the program cannot be started. The message says why, and
    what to do."""


class Checkup(msgspec.Struct, frozen=True):
    """A check that a running program works.

    `diagnosis` returns what is wrong, or None; that may take a few seconds. After `in_a_row` failed
    checks, one `every_seconds`, the program is killed, and so restarted. If no check has passed since
    its start, `remedy` is called before the restart, and returns what it did.
    """

    diagnosis: Callable[[], Awaitable[str | None]]
    remedy: Callable[[], str] | None = None
    every_seconds: float = 5.0
    in_a_row: int = 3


class Program(msgspec.Struct, frozen=True):
    """A program to keep running.

    `argv[0]` is an absolute path. `is_ready` checks once whether it is ready, within two seconds.
    `prepare` is called before each start, and may raise `NotPrepared`. Once it is ready, the `checkup`
    begins. An exit code in `final_codes` before it was ever ready means that a restart cannot help. One
    that is not `awaited` starts after the others, and nothing waits for it.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    is_ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[], None] = lambda: None
    checkup: Checkup | None = None
    final_codes: Collection[int] = ()
    awaited: bool = True


class Backoff(msgspec.Struct, frozen=True):
    """The delay before a program that ended is restarted: twice as long each time.

    It is reset after a run of `stable_seconds` or more.
    """

    first_seconds: float = 0.2
    longest_seconds: float = 30.0
    stable_seconds: float = 30.0

    def short_runs(self, before: int, ran_seconds: float) -> int:
        """Return how many short runs there have been in a row, after a run that has just ended."""
        return 1 if ran_seconds >= self.stable_seconds else before + 1

    def delay_seconds(self, short_runs: int) -> float:
        """Return the delay after that many short runs in a row, at least 1."""
        doublings = min(short_runs - 1, 32)  # more would overflow before the limit applies
        return min(self.longest_seconds, self.first_seconds * 2.0**doublings)


class Supervisor:
    """Runs stages of programs: starts all together, stops them stage by stage from the last.

    `say` is called with a sentence for each change of a program; `show` with the name of a program
    and each line that it writes. Both are called on the thread of the event loop and must not raise.
    To be used in the main thread of the process: the programs end with the thread that starts them.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Program]],
        *,
        grace_seconds: float,
        say: Callable[[str], None],
        show: Callable[[str, bytes], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._hurry = asyncio.Event()
        self._stages = [
            [
                ProcessRunner(
                    program,
                    grace_seconds=grace_seconds,
                    hurry=self._hurry,
                    say=say,
                    show=show,
                    backoff=backoff or Backoff(),
                )
                for program in stage
            ]
            for stage in stages
        ]

    @property
    def runners(self) -> list["ProcessRunner"]:
        """The runner of each program."""
        return [runner for stage in self._stages for runner in stage]

    @property
    def not_ready(self) -> list[str]:
        """The names of the awaited programs that are not ready now."""
        return [runner.name for runner in self._awaited if not runner.ready.is_set()]

    async def all_ready(self) -> None:
        """Wait until each awaited program has been ready at least once."""
        for runner in self._awaited:
            await runner.ready.wait()

    @property
    def _awaited(self) -> list["ProcessRunner"]:
        return [runner for runner in self.runners if runner.awaited]

    @property
    def final_code(self) -> int | None:
        """The exit code of a program that cannot be restarted, None if there is none."""
        codes = (runner.final_code for runner in self.runners)
        return next((code for code in codes if code is not None), None)

    async def run(self, stop: asyncio.Event) -> bool:
        """Keep the programs running until `stop`; return whether all then ended without SIGKILL.

        Sets `stop` itself when one of them cannot be restarted.
        """
        async with asyncio.TaskGroup() as running:
            for runner in self.runners:
                running.create_task(self._keep(runner, stop))
            await stop.wait()
            for stage in reversed(self._stages):
                await asyncio.gather(*(runner.stop() for runner in stage))
        return not any(runner.forced for runner in self.runners)

    async def _keep(self, runner: "ProcessRunner", stop: asyncio.Event) -> None:
        if not runner.awaited:
            others = asyncio.create_task(self.all_ready())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait(
                (others, stopping),
                timeout=OTHERS_READY_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            others.cancel()
            stopping.cancel()
        await runner.keep(give_up=stop.set)

    def hurry(self) -> None:
        """End the grace period: kill programs that are stopping, or will be, at once."""
        self._hurry.set()


class ProcessRunner:
    """Keeps one program running: starts it, waits for its end, waits for the backoff, starts it again."""

    def __init__(
        self,
        program: Program,
        *,
        grace_seconds: float,
        hurry: asyncio.Event,
        say: Callable[[str], None],
        show: Callable[[str, bytes], None],
        backoff: Backoff,
    ) -> None:
        self.name = program.name
        self.awaited = program.awaited
        self.pid: int | None = None
        """The running process, which is also its group and session."""
        self.forced = False
        """Whether it was killed because it did not stop in time."""
        self.ready = asyncio.Event()
        self.final_code: int | None = None
        """The exit code after which it cannot be restarted."""
        self._program = program
        self._grace_seconds = grace_seconds
        self._hurry = hurry
        self._say = say
        self._show = show
        self._backoff = backoff
        self._short_runs = 0
        self._was_ready = False
        self._last_line = b""
        self._needs_remedy = False
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    async def keep(self, *, give_up: Callable[[], None]) -> None:
        """Run until stopped, or until a restart cannot help; then call `give_up`."""
        while not self._stopping.is_set() and self.final_code is None:
            await self.run_once()
        self._stopped.set()
        if self.final_code is not None:
            give_up()

    async def stop(self) -> None:
        """Stop the program, and wait until it has ended."""
        self._stopping.set()
        await self._stopped.wait()

    async def run_once(self) -> None:
        """Run the program once, and wait for the backoff."""
        began = asyncio.get_running_loop().time()
        end = await self._run()
        if self._stopping.is_set():
            return
        if self.final_code is not None:
            last_line = self._last_line.decode(errors="replace")
            self._say(f"{self.name} {end}, and would again; last output: {last_line}")
            return
        ran_seconds = asyncio.get_running_loop().time() - began
        self._short_runs = self._backoff.short_runs(self._short_runs, ran_seconds)
        delay_seconds = self._backoff.delay_seconds(self._short_runs)
        self._say(f"{self.name} {end}; starting it again in {delay_seconds:g} s")
        await _happens(self._stopping, within_seconds=delay_seconds)

    async def _run(self) -> str:
        """Start the program and wait for its end; return how it ended."""
        try:
            process = await self._start()
        except OSError as error:
            return f"could not be started ({error.strerror})"
        except NotPrepared as error:
            return f"could not be started: {error}"
        self.pid = process.pid
        async with asyncio.TaskGroup() as tasks:
            output = tasks.create_task(self._show_output(process))
            readiness = tasks.create_task(self._watch_readiness())
            health = tasks.create_task(self._watch_health(process))
            await self._until_end(process)
            readiness.cancel()
            health.cancel()
            # It has ended, but its last output may still be in the pipe.
            await asyncio.wait([output], timeout=LAST_OUTPUT_SECONDS)
            output.cancel()
        self.ready.clear()
        self.pid = None
        if not self._was_ready and process.returncode in self._program.final_codes:
            self.final_code = process.returncode
        return _end_of(process)

    async def _start(self) -> asyncio.subprocess.Process:
        checkup = self._program.checkup
        if self._needs_remedy and checkup is not None and checkup.remedy is not None:
            self._say(f"{self.name}: {checkup.remedy()}")
            self._needs_remedy = False
        self._program.prepare()
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", TETHER, str(os.getpid())),
            *self._program.argv,
            env=self._program.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in the terminal is for the supervisor, not for the programs.
            start_new_session=True,
        )

    async def _until_end(self, process: asyncio.subprocess.Process) -> None:
        ended = asyncio.create_task(process.wait())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ended.done():
            await self._end(process, ended)

    async def _end(self, process: asyncio.subprocess.Process, ended: "asyncio.Task[int]") -> None:
        _signal_group(process, signal.SIGTERM)
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait(
            [ended, hurry], timeout=self._grace_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        hurry.cancel()
        if not ended.done():
            self.forced = True
            why = "" if self._hurry.is_set() else f" within {self._grace_seconds:g} s"
            self._say(f"{self.name} has not stopped{why}; killing it")
            _signal_group(process, signal.SIGKILL)
        await ended

    async def _watch_readiness(self) -> None:
        begun = asyncio.get_running_loop().time()
        while not await self._program.is_ready():  # noqa: ASYNC110 - in another process
            await asyncio.sleep(READY_POLL_SECONDS)
        self.ready.set()
        self._was_ready = True
        if self._short_runs:
            took_seconds = asyncio.get_running_loop().time() - begun
            self._say(f"{self.name} is ready again, after {took_seconds:.1f} s")

    async def _watch_health(self, process: asyncio.subprocess.Process) -> None:
        """Kill the program if it runs but does not work."""
        checkup = self._program.checkup
        if checkup is None:
            return
        await self.ready.wait()
        diagnosis, failed_checks, checks = None, 0, 0
        while failed_checks < checkup.in_a_row:
            await asyncio.sleep(checkup.every_seconds)
            diagnosis = await checkup.diagnosis()
            failed_checks = failed_checks + 1 if diagnosis else 0
            checks += 1
        self._needs_remedy = failed_checks == checks
        self._say(f"{self.name} runs but does not work: {diagnosis}; killing it")
        # Not SIGTERM: a stopped or stuck program does not handle it.
        _signal_group(process, signal.SIGKILL)

    async def _show_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in _lines(process.stdout):
            self._last_line = line
            self._show(self.name, line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream; a line over the limit comes in pieces."""
    rest = b""
    while chunk := await stream.read(OUTPUT_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > OUTPUT_LINE_BYTES_MAX:
            yield rest
            rest = b""
    if rest:
        yield rest


async def _happens(event: asyncio.Event, *, within_seconds: float) -> bool:
    try:
        async with asyncio.timeout(within_seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _end_of(process: asyncio.subprocess.Process) -> str:
    assert process.returncode is not None
    if process.returncode < 0:
        number = -process.returncode
        return f"was ended by signal {number} ({signal.strsignal(number)})"
    return f"ended with exit code {process.returncode}"

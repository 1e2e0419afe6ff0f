"""Keeps a handful of programs running, says what becomes of them, and stops them in order."""

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


class Checkup(msgspec.Struct, frozen=True):
    """How it shows that a program runs and does not work.

    `ailment` says once what is wrong with it, or None; that may take a few seconds. A program that
    ails `in_a_row` times, looked at `every_seconds`, is killed, and so started again. If it has not
    been well for a moment of its life, `remedy` is called before that, and says what it did.
    """

    diagnosis: Callable[[], Awaitable[str | None]]
    remedy: Callable[[], str]
    every_seconds: float = 5.0
    in_a_row: int = 3


class Program(msgspec.Struct, frozen=True):
    """What is to be kept running.

    `argv[0]` is an absolute path. `is_ready` asks once whether it serves, and takes no longer than
    a second or two. `prepare` is called before each start. From when it is ready on, the `checkup`
    is made. Until it is ready for the first time, an exit code among `final_codes` says that it
    would never be.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    is_ready: Callable[[], Awaitable[bool]]
    prepare: Callable[[], None] = lambda: None
    checkup: Checkup | None = None
    final_codes: Collection[int] = ()


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before a program that ended is started again: twice as long each time.

    A life of `stable_seconds` or more makes it begin anew.
    """

    first_seconds: float = 0.2
    longest_seconds: float = 30.0
    stable_seconds: float = 30.0

    def short_lives(self, before: int, lived_seconds: float) -> int:
        """How many short lives there have been in a row, now that another life has ended."""
        return 1 if lived_seconds >= self.stable_seconds else before + 1

    def delay_seconds(self, short_lives: int) -> float:
        """The wait after that many short lives in a row, from 1."""
        doublings = min(short_lives - 1, 32)  # more would only overflow on the way to the limit
        return min(self.longest_seconds, self.first_seconds * 2.0**doublings)


class Supervisor:
    """Runs stages of programs: starts all together, stops them stage by stage from the last.

    `say` is told, in a sentence, what becomes of the programs; `show` is given the name of a
    program and each line that it writes. Both are called on the event loop's thread and must not
    raise. To be used in the process's main thread: the programs die with the thread that starts
    them.
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
        """One for each program."""
        return [keeper for stage in self._stages for keeper in stage]

    @property
    def not_ready(self) -> list[str]:
        """The names of the programs that do not serve now."""
        return [keeper.name for keeper in self.runners if not keeper.ready.is_set()]

    async def all_ready(self) -> None:
        """Wait until each program has served at least once, at the same or at different times."""
        for keeper in self.runners:
            await keeper.ready.wait()

    @property
    def final_code(self) -> int | None:
        """The exit code with which a program ended for good, if one did."""
        codes = (keeper.final_code for keeper in self.runners)
        return next((code for code in codes if code is not None), None)

    async def run(self, stop: asyncio.Event) -> bool:
        """Keep the programs running until `stop`; return whether all then ended unforced.

        `stop` is set from here when one of them has ended for good.
        """
        async with asyncio.TaskGroup() as lives:
            for keeper in self.runners:
                lives.create_task(keeper.keep(give_up=stop.set))
            await stop.wait()
            for stage in reversed(self._stages):
                await asyncio.gather(*(keeper.stop() for keeper in stage))
        return not any(keeper.forced for keeper in self.runners)

    def hurry(self) -> None:
        """Cut the grace short: programs that are stopping, or will be, are killed at once."""
        self._hurry.set()


class ProcessRunner:
    """Keeps one program running: starts it, waits for its end, waits a little, starts it again."""

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
        self.pid: int | None = None
        """The running process, which is also its group and session."""
        self.forced = False
        """Whether it had to be killed because it did not stop in time."""
        self.ready = asyncio.Event()
        self.final_code: int | None = None
        """The exit code with which it ended for good."""
        self._program = program
        self._grace_seconds = grace_seconds
        self._hurry = hurry
        self._say = say
        self._show = show
        self._backoff = backoff
        self._short_lives = 0
        self._has_served = False
        self._last_words = b""
        self._needs_remedy = False
        self._stopping = asyncio.Event()
        self._stopped = asyncio.Event()

    async def keep(self, *, give_up: Callable[[], None]) -> None:
        """Go on until stopped, or until it is of no use to go on; then `give_up`."""
        while not self._stopping.is_set() and self.final_code is None:
            await self.live_once()
        self._stopped.set()
        if self.final_code is not None:
            give_up()

    async def stop(self) -> None:
        """Ask the program to end, and wait until it has."""
        self._stopping.set()
        await self._stopped.wait()

    async def live_once(self) -> None:
        """One life of the program, and the wait after it."""
        born = asyncio.get_running_loop().time()
        end = await self._live()
        if self._stopping.is_set():
            return
        if self.final_code is not None:
            last_words = self._last_words.decode(errors="replace")
            self._say(f"{self.name} {end}, and would again; it said last: {last_words}")
            return
        lived_seconds = asyncio.get_running_loop().time() - born
        self._short_lives = self._backoff.short_lives(self._short_lives, lived_seconds)
        delay_seconds = self._backoff.delay_seconds(self._short_lives)
        self._say(f"{self.name} {end}; starting it again in {delay_seconds:g} s")
        await _happens(self._stopping, within_seconds=delay_seconds)

    async def _live(self) -> str:
        """Start the program and see it to its end; return how that came."""
        try:
            process = await self._start()
        except OSError as error:
            return f"could not be started ({error.strerror})"
        self.pid = process.pid
        async with asyncio.TaskGroup() as life:
            output = life.create_task(self._show_output(process))
            readiness = life.create_task(self._watch_readiness())
            health = life.create_task(self._watch_health(process))
            await self._until_end(process)
            readiness.cancel()
            health.cancel()
            # It is dead, but what it wrote last may still be in the pipe.
            await asyncio.wait([output], timeout=LAST_OUTPUT_SECONDS)
            output.cancel()
        self.ready.clear()
        self.pid = None
        if not self._has_served and process.returncode in self._program.final_codes:
            self.final_code = process.returncode
        return _end_of(process)

    async def _start(self) -> asyncio.subprocess.Process:
        if self._needs_remedy and self._program.checkup is not None:
            self._say(f"{self.name}: {self._program.checkup.remedy()}")
            self._needs_remedy = False
        self._program.prepare()
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", TETHER, str(os.getpid())),
            *self._program.argv,
            env=self._program.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            # Ctrl-C in the terminal is for whoever supervises, not for the programs.
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
        self._has_served = True
        if self._short_lives:
            took_seconds = asyncio.get_running_loop().time() - begun
            self._say(f"{self.name} is ready again, after {took_seconds:.1f} s")

    async def _watch_health(self, process: asyncio.subprocess.Process) -> None:
        """Kill the program if it runs and does not work."""
        checkup = self._program.checkup
        if checkup is None:
            return
        await self.ready.wait()
        diagnosis, ailing, checks = None, 0, 0
        while ailing < checkup.in_a_row:
            await asyncio.sleep(checkup.every_seconds)
            diagnosis = await checkup.diagnosis()
            ailing = ailing + 1 if diagnosis else 0
            checks += 1
        self._needs_remedy = ailing == checks
        self._say(f"{self.name} runs but does not work: {diagnosis}; killing it")
        # Not SIGTERM: what is stopped or stuck does not hear it.
        _signal_group(process, signal.SIGKILL)

    async def _show_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in _lines(process.stdout):
            self._last_words = line
            self._show(self.name, line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """What the stream says, line by line; a line beyond all measure comes in pieces."""
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

"""Runs a real system of its own: `todoku up` in a folder, on free ports."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from todoku.broker import embedded
from todoku.lab.output import CapturedOutput
from todoku.lab.processes import programs_of, resident_bytes
from todoku.lab.system_client import SystemClient
from todoku.local.supervisor import TETHER
from todoku.settings import Settings, Span, to_environment
from todoku.system import load_system

TODOKU = (sys.executable, "-P", "-m", "todoku")

READY = "todoku is ready in "
SECONDS_MAX = 60.0
PROBE_SECONDS = 2.0
POLL_SECONDS = 0.05

PORTS = range(12_000, 32_000)
"""Below those that systems give to outgoing connections: one that is free now stays free until it is used."""


class StackFailed(Exception):
    """The system could not be started, or ended by itself. The message has its output.

    `exit_code` is the one that it ended with, None if it runs; `last_line` what it printed last.
    """

    def __init__(self, what: str, exit_code: int | None, lines: Sequence[str]) -> None:
        super().__init__("\n".join([f"{what}:", *lines]))
        self.exit_code = exit_code
        self.last_line = lines[-1] if lines else "it printed nothing"


class Stack:
    """A `todoku up` of its own, and every way to break it from outside.

    Its standard output is captured in `output`; what its programs log is appended to the file `log`.
    `environment` is added to the settings and to the caller's own. It ends with this process, and as
    a context manager at the end of the block. `spawn` starts a process as `subprocess.Popen` does. To
    be started in a thread that lives as long as the stack: the kernel goes by it.
    """

    def __init__(
        self,
        settings: Settings,
        log: Path,
        *,
        command: Sequence[str] = (*TODOKU, "up"),
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        spawn: Callable[..., "subprocess.Popen[str]"] = subprocess.Popen,
    ) -> None:
        self.settings = settings
        self.log = log
        self.client = SystemClient(settings, timeout_seconds=PROBE_SECONDS)
        self.ready_seconds: float | None = None
        """How long the last start took."""
        self._command = command
        self._environment = to_environment(settings) if environment is None else environment
        self._folder = folder
        self._spawn = spawn
        self._process: subprocess.Popen[str] | None = None
        self._output = CapturedOutput([])
        self._log_start = 0

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_up()

    @property
    def output(self) -> CapturedOutput:
        """What `up` has printed since it was last started."""
        return self._output

    @property
    def services(self) -> tuple[str, ...]:
        """The names of its services."""
        return load_system(self.settings).names

    def url(self, service: str) -> str:
        """Return the address of a service, without a slash at the end."""
        return self.settings.http_url(service)

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Run `todoku up`, and wait until everything is ready. Raises `StackFailed`."""
        began = time.monotonic()
        self.launch(environment)
        try:
            self._output.until(READY, SECONDS_MAX)
        except TimeoutError:
            raise self._failed("the system did not become ready") from None
        self.ready_seconds = time.monotonic() - began

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Run `todoku up` with more in its environment, without waiting."""
        with self.log.open("a") as err:
            self._log_start = err.tell()
            self._process = self._spawn(
                [*(sys.executable, "-I", "-S", str(TETHER), str(os.getpid())), *self._command],
                cwd=self._folder,
                env={**os.environ, **self._environment, **(environment or {})},
                stdin=subprocess.PIPE,  # the tether elsewhere than on Linux
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                # Ctrl-C in the terminal is for this process, not for the system.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._output = CapturedOutput(self._process.stdout)

    def require_running(self) -> None:
        """Raise `StackFailed` if `up` has ended."""
        if self._running().poll() is not None:
            raise self._failed("the system ended while it was under load")

    def stop(self) -> int:
        """Interrupt `up` as Ctrl-C does, wait for its end, and return its exit code."""
        process = self._running()
        process.send_signal(signal.SIGINT)
        code = process.wait(SECONDS_MAX)
        self._release()
        return code

    def kill_up(self) -> None:
        """Kill `up` with SIGKILL, if it runs; its programs end with it."""
        if self._process is not None:
            # One that was stopped by a signal is killed by its parent's death all the same.
            self._process.kill()
            self._process.wait(SECONDS_MAX)
            self._release()

    def pids(self) -> dict[str, int]:
        """Return the process of `up` and of each program that runs now, by name."""
        up = self._running().pid
        return {"up": up, **programs_of(up)}

    def children(self) -> dict[str, int]:
        """Return the process of each program that runs now, by name."""
        return programs_of(self._running().pid)

    def pid(self, name: str) -> int:
        """Return the process of a program; wait for it while it is being restarted."""
        found: int = self._until(lambda: self.children().get(name), f"{name} is not running")
        return found

    def kill(self, name: str) -> None:
        """Kill a program with SIGKILL."""
        os.kill(self.pid(name), signal.SIGKILL)

    def freeze(self, name: str) -> None:
        """Stop a program with SIGSTOP; its connections stay open."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """Continue a frozen program, if it still exists."""
        pid = self.children().get(name)
        if pid is not None:
            os.kill(pid, signal.SIGCONT)

    def until_ready(self, seconds_max: float = SECONDS_MAX) -> None:
        """Wait until all services and the broker are ready. Raises `TimeoutError`."""
        self._until(self.is_ready, "not everything is ready", seconds_max)

    def is_ready(self) -> bool:
        """Return whether all services and the broker are ready."""
        return all(map(self.client.is_ready, self.services)) and asyncio.run(
            embedded.is_ready(self.settings.nats_port)
        )

    def resident_bytes(self, name: str) -> int:
        """Return how much memory a program occupies now."""
        return resident_bytes(self.pid(name))

    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None, "it was not started"
        return self._process

    def _release(self) -> None:
        process, self._process = self._running(), None
        self._output.until_end()
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        process.stdout.close()

    def _failed(self, what: str) -> StackFailed:
        with self.log.open(errors="replace") as log:
            log.seek(self._log_start)
            lines = [*self._output.lines, *log.read().splitlines()]
        return StackFailed(what, self._exit_code(), lines)

    def _exit_code(self) -> int | None:
        """Return how `up` ended; `None` while it runs.

        A process that ends closes its output a moment before its exit code can be read.
        """
        process = self._running()
        if self._output.ended:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_MAX)
        return process.poll()

    def _until(
        self, look: Callable[[], Any], complaint: str, seconds_max: float = SECONDS_MAX
    ) -> Any:
        deadline = time.monotonic() + seconds_max
        while not (found := look()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{complaint} after {seconds_max:g} s: {self.output.lines[-5:]}")
            time.sleep(POLL_SECONDS)
        return found


@contextmanager
def running_stack(stack: Stack) -> Iterator[Stack]:
    """Start a stack, and stop it at the end. Raises `StackFailed` if it does not stay up."""
    with stack:
        stack.start()
        try:
            yield stack
        finally:
            stack.require_running()
            stack.stop()


def isolated_settings(
    data_dir: Path, *, system_name: str = Settings().system, **changes: Any
) -> Settings:
    """Return settings of a system on free ports, with a carrier that answers at once."""
    system = load_system(Settings(system=system_name))
    chosen: dict[str, Any] = {
        **free_port_settings(system.names),
        "system": system_name,
        "data_dir": data_dir,
        "log_format": "json",
        "console": False,
    }
    if "carrier_delay_seconds" in system.declared:
        chosen["carrier_delay_seconds"] = Span(0, 0)
    return system.settings(**chosen | changes)


def free_port_settings(services: Iterable[str]) -> dict[str, int]:
    """Return a free port for each service and for the broker, by the setting's name."""
    names = [*(f"{service}_port" for service in services), "nats_port"]
    return dict(zip(names, free_ports(len(names)), strict=True))


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that are free now, all different, and others than the last time."""
    return list(itertools.islice(filter(_is_free, _untried_ports()), count))


@cache
def _untried_ports() -> Iterator[int]:
    first = os.getpid() * 997 % len(PORTS)  # Other processes choose others.
    return itertools.cycle((*PORTS[first:], *PORTS[:first]))


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True

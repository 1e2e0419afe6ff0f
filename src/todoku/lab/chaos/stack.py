"""A `todoku up` of one's own, and every way to break it from outside."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from todoku.broker import embedded
from todoku.settings import Settings, Span, to_environment
from todoku.system import load_system, system

ProgramName = str
PROGRAMS: tuple[ProgramName, ...] = (*system.names, "broker")

READY_SECONDS_MAX = 60.0
SAID_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
PROBE_SECONDS = 2.0
POLL_SECONDS = 0.05


class Stack:
    """A `todoku up`, run as a user runs it: a real process with real children.

    What it says on stdout is `heard`; what its programs log is appended to the file `log`. Used as a
    context, nothing of it is left running at the end; through a `tether` (todoku/local/tether.py), it
    ends with this process too, whatever happens to that. To be started in the main thread.
    """

    def __init__(self, settings: Settings, log: Path, *, tether: Path) -> None:
        self.settings = settings
        self.log = log
        self._tether = tether
        self._process: subprocess.Popen[str] | None = None
        self._heard = CapturedOutput([])

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_up()

    @property
    def heard(self) -> "CapturedOutput":
        """What `up` has said since it was last started."""
        return self._heard

    @property
    def services(self) -> tuple[str, ...]:
        """The names of its services."""
        return load_system(self.settings).names

    def url(self, service: str) -> str:
        """Where a service is, without a slash at the end."""
        return self.settings.http_url(service)

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Run `todoku up`, with more in its environment, and wait until everything has been ready."""
        self.launch(environment)
        self._heard.until("todoku is ready in ")

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """The same, without waiting."""
        with self.log.open("a") as err:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", self._tether, str(os.getpid())),
                    *(sys.executable, "-P", "-m", "todoku", "up"),
                ],
                env={**os.environ, **to_environment(self.settings), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
                # Ctrl-C in the terminal is for whoever breaks this, not for what is broken.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        self._heard = CapturedOutput(self._process.stdout)

    def stop(self) -> int:
        """Ctrl-C; the exit code of `up`."""
        process = self._running()
        process.send_signal(signal.SIGINT)
        code = process.wait(STOP_SECONDS_MAX)
        self._end()
        return code

    def kill_up(self) -> None:
        """`kill -9` of `up` itself, if it runs; its programs end with it."""
        if self._process is not None:
            # One that was stopped by a signal is killed by its parent's death all the same.
            self._process.kill()
            self._process.wait(STOP_SECONDS_MAX)
            self._end()

    def children(self) -> dict[ProgramName, int]:
        """The process of each program that runs now."""
        found: dict[ProgramName, int] = {}
        for pid in _children_of(self._running().pid):
            name = _program_of(pid)
            if name is not None:
                found[name] = pid
        return found

    def pid(self, name: ProgramName) -> int:
        """The process of a program; waits for it while it is being started again."""
        found: int = self._until(lambda: self.children().get(name), f"{name} is not running")
        return found

    def kill(self, name: ProgramName) -> None:
        """`kill -9` of a program."""
        os.kill(self.pid(name), signal.SIGKILL)

    def freeze(self, name: ProgramName) -> None:
        """Let a program hear nothing and say nothing, while its connections stay open."""
        os.kill(self.pid(name), signal.SIGSTOP)

    def thaw(self, name: ProgramName) -> None:
        """Let a frozen program go on, if it is still there."""
        pid = self.children().get(name)
        if pid is not None:
            os.kill(pid, signal.SIGCONT)

    def until_ready(self, seconds_max: float = READY_SECONDS_MAX) -> None:
        """Wait until all services and the broker answer."""
        self._until(self.is_ready, "not everything is ready", seconds_max)

    def is_ready(self) -> bool:
        """Whether all services and the broker answer now."""
        return all(map(self.answers, self.services)) and asyncio.run(
            embedded.is_ready(self.settings.nats_port)
        )

    def answers(self, service: str) -> bool:
        """Whether a service says that it is ready."""
        try:
            return bool(self.get(service, "/readyz"))
        except OSError:
            return False

    def get(self, service: str, path: str) -> bytes:
        """What a service answers. Raises an `OSError` if it does not, or not with a success."""
        with urllib.request.urlopen(self.url(service) + path, timeout=PROBE_SECONDS) as answer:
            body: bytes = answer.read()
            return body

    def metric(self, service: str, name: str) -> float:
        """A figure without labels from a service's `/metrics`."""
        for line in self.get(service, "/metrics").decode().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return float(value)
        raise KeyError(name)

    def resident_bytes(self, name: ProgramName) -> int:
        """How much memory a program occupies now."""
        pages = Path(f"/proc/{self.pid(name)}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _running(self) -> "subprocess.Popen[str]":
        assert self._process is not None, "it was not started"
        return self._process

    def _end(self) -> None:
        process, self._process = self._running(), None
        self._heard.until_end()
        assert process.stdout is not None
        process.stdout.close()

    def _until(
        self, look: Callable[[], Any], complaint: str, seconds_max: float = READY_SECONDS_MAX
    ) -> Any:
        patience_ends = time.monotonic() + seconds_max
        while not (found := look()):
            if time.monotonic() > patience_ends:
                raise TimeoutError(f"{complaint} after {seconds_max:g} s: {self._heard.lines[-5:]}")
            time.sleep(POLL_SECONDS)
        return found


class CapturedOutput:
    """The lines of a stream as they come, kept for whoever waits for one."""

    def __init__(self, stream: Iterable[str]) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    def count(self, text: str) -> int:
        """In how many lines `text` has been said."""
        return sum(text in line for line in list(self.lines))

    def until(self, text: str, seconds_max: float = SAID_SECONDS_MAX, *, times: int = 1) -> None:
        """Wait until `text` has been said in that many lines. Raises `TimeoutError` if it is not."""
        with self._news:
            self._news.wait_for(lambda: self.count(text) >= times or self._ended, seconds_max)
        if self.count(text) < times:
            raise TimeoutError(f"{text!r} was not said {times} times: {self.lines}")

    def until_end(self, seconds_max: float = SAID_SECONDS_MAX) -> None:
        """Wait until nobody can write to the stream any more. Raises `TimeoutError`."""
        with self._news:
            if not self._news.wait_for(lambda: self._ended, seconds_max):
                raise TimeoutError(f"somebody still has the stream, which said: {self.lines}")

    def _listen(self, stream: Iterable[str]) -> None:
        for line in stream:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


def fresh_settings(data_dir: Path, **changes: Any) -> Settings:
    """Settings for a stack of one's own: on free ports, with a carrier that answers at once."""
    ports = [*(f"{service}_port" for service in system.names), "nats_port"]
    chosen: dict[str, Any] = {
        **dict(zip(ports, _free_ports(len(ports)), strict=True)),
        "data_dir": data_dir,
        "carrier_delay_seconds": Span(0, 0),
        "log_format": "json",
    }
    return system.settings(**chosen | changes)


def _free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _program_of(pid: int) -> ProgramName | None:
    """Which program a process is; None while it is not one of them yet, or any more."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return None
    if words and Path(words[0]).name == embedded.PROGRAM:
        return "broker"
    return next(
        (name for name in system.names if words[1:] == ["-P", "-m", "todoku", "run", name]), None
    )

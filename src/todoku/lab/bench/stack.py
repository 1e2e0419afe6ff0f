"""A fresh system to put a load on: `todoku up` in a folder of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import msgspec

from todoku.lab.bench.fsyncs import FsyncCounter, counting_fsyncs
from todoku.lab.bench.processes import children
from todoku.settings import Settings, to_environment
from todoku.system import load_system, system

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 30.0
LOOK_SECONDS = 0.01
READY = "todoku is ready"


class StackFailed(Exception):
    """The system could not be started, or did not stay up. The message says what it said.

    `exit_code` is the one that it ended with, if it has.
    """

    def __init__(self, what: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        super().__init__(f"{what}:\n{_said(log).strip()}")
        self.exit_code = process.poll()


class Stack(msgspec.Struct, frozen=True):
    """A running system: its settings, its processes by name, and how long it took to be ready.

    `synced` are the paths of files and how often each was synced, if that is counted.
    """

    settings: Settings
    pids: dict[str, int]
    ready_seconds: float
    synced: Mapping[str, int] | None

    def fsyncs(self) -> dict[str, int]:
        """How many fsyncs each process has made, by name; empty if they are not counted."""
        if self.synced is None:
            return {}
        folder = self.settings.data_dir.resolve()
        found = Counter(dict.fromkeys((*load_system(self.settings).names, "broker"), 0))
        for path, count in dict(self.synced).items():
            if Path(path).is_relative_to(folder) and path != str(folder):
                first = Path(path).relative_to(folder).parts[0]
                found[first.partition(".db")[0]] += count
        return found


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that are free now, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def own_stack(
    settings: Settings,
    folder: Path,
    *,
    tether: Sequence[str],
    environment: Mapping[str, str] | None = None,
    count_fsyncs: bool = False,
) -> Iterator[Stack]:
    """Run `todoku up` with these settings, and stop it at the end.

    What it says goes into `folder`. `tether` is a command that runs another and ends it when this
    process, whose id it is told, dies. `environment` is added to ours. Raises `StackFailed`, and
    `CannotCount` if fsyncs are to be counted and cannot be.
    """
    command = [*tether, str(os.getpid()), sys.executable, "-P", "-m", "todoku", "up"]
    variables = {**os.environ, **to_environment(settings), **(environment or {})}
    with (
        counting_fsyncs() if count_fsyncs else nullcontext() as counter,
        _running(command, variables, folder, settings, counter) as stack,
    ):
        yield stack


@contextmanager
def _running(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    settings: Settings,
    counter: FsyncCounter | None,
) -> Iterator[Stack]:
    log = folder / "up.log"
    born = time.monotonic()

    def start() -> "subprocess.Popen[bytes]":
        with log.open("wb") as out:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.PIPE,  # a tether elsewhere than on Linux
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    process = counter.run(start) if counter else start()
    try:
        _await_ready(process, log)
        ready_seconds = time.monotonic() - born
        pids = {"up": process.pid, **_programs(process.pid)}
        try:
            yield Stack(settings, pids, ready_seconds, counter.counts if counter else None)
        finally:
            if process.poll() is not None:
                raise StackFailed("the system ended while it was under load", process, log)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while READY not in _said(log):
        if process.poll() is not None or time.monotonic() > deadline:
            raise StackFailed("the system did not become ready", process, log)
        time.sleep(LOOK_SECONDS)


def _said(log: Path) -> str:
    return log.read_text(errors="replace")


def _programs(up: int) -> dict[str, int]:
    if sys.platform != "linux":
        return {}
    found = children(up)
    return {name: found[name] for name in (*system.names, "broker") if name in found}

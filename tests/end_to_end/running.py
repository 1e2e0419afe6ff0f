"""`todoku up` as a user runs it: a real process with real children, and its output."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from todoku.lab.chaos import CapturedOutput
from todoku.system import system

BOUND_SECONDS = 60.0


class Up(msgspec.Struct, frozen=True):
    """A running `todoku up`."""

    process: "subprocess.Popen[str]"
    ports: Sequence[int]
    heard: CapturedOutput

    def url(self, service: str) -> str:
        """The address of a service, without a trailing slash."""
        return f"http://127.0.0.1:{dict(zip(system.names, self.ports, strict=False))[service]}"

    def children(self) -> dict[str, int]:
        """The process of each program, by the program's name."""
        found = {}
        for pid in _children_of(self.process.pid):
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            found["broker" if "nats-server" in words[0] else words[-1]] = pid
        return found

    def kill(self, name: str) -> None:
        """`kill -9` of one of its programs."""
        os.kill(self.children()[name], signal.SIGKILL)

    def interrupt(self) -> int:
        """Send Ctrl-C as the terminal does; return the exit code of `up`."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(BOUND_SECONDS)

    def answers(self, service: str) -> bool:
        """Whether the service reports that it is ready."""
        with urllib.request.urlopen(f"{self.url(service)}/readyz", timeout=BOUND_SECONDS) as answer:
            return bool(answer.status == 200)


@contextmanager
def up(
    folder: Path,
    ports: Sequence[int],
    *flags: str,
    todoku: Sequence[str] = (sys.executable, "-P", "-m", "todoku"),
) -> Iterator[Up]:
    """Run `todoku up` on ports for the three services and the broker; at the end, kill what is left."""
    names = [*(f"--{service}-port" for service in system.names), "--nats-port"]
    chosen = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
    log = folder / "up.stderr"
    with log.open("a") as err:
        process = subprocess.Popen(
            [*todoku, "up", "--data-dir", str(folder / "data"), *chosen, *flags],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    assert process.stdout is not None
    running = Up(process, ports, CapturedOutput(process.stdout))
    try:
        yield running
    finally:
        process.kill()
        process.wait(BOUND_SECONDS)
        running.heard.until_end()
        process.stdout.close()


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

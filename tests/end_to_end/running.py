"""Runs `todoku up` as a user does: with flags, in a folder, as a real process with real children."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from todoku.lab.output import CapturedOutput
from todoku.lab.stack import SECONDS_MAX, Stack
from todoku.system import system

__all__ = ["BOUND_SECONDS", "PORT_COUNT", "CapturedOutput", "Up", "up"]

BOUND_SECONDS = SECONDS_MAX

PORT_COUNT = len(system.names) + 1
"""One for each service and the broker."""


class Up(Stack):
    """A running `todoku up`."""

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The process of `up`."""
        return self._running()

    @property
    def ports(self) -> list[int]:
        """The ports of the services and of the broker."""
        return [*map(self.settings.port, system.names), self.settings.nats_port]

    def interrupt(self) -> int:
        """Interrupt `up` as Ctrl-C does; return its exit code."""
        return self.stop()

    def answers(self, service: str) -> bool:
        """Return whether a service is ready."""
        return self.client.is_ready(service)


@contextmanager
def up(
    folder: Path,
    ports: Sequence[int],
    *flags: str,
    todoku: Sequence[str] = (sys.executable, "-P", "-m", "todoku"),
) -> Iterator[Up]:
    """Run `todoku up` on ports for the services and the broker; kill what is left at the end."""
    names = [*(f"{service}_port" for service in system.names), "nats_port"]
    chosen = dict(zip(names, ports, strict=True))
    data_dir = folder / "data"
    words = [
        word for name, port in chosen.items() for word in (f"--{name.replace('_', '-')}", str(port))
    ]
    running = Up(
        system.settings(data_dir=data_dir, **chosen),
        folder / "up.stderr",
        command=[*todoku, "up", "--data-dir", str(data_dir), *words, "--no-console", *flags],
        environment={},
        folder=folder,
    )
    with running:
        running.launch()
        yield running

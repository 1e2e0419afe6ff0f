"""Runs one more process of a service that shares its database."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

import msgspec

from todoku.lab.stack import TODOKU, free_ports
from todoku.lab.system_client import SystemClient
from todoku.local.supervisor import TETHER
from todoku.settings import Settings, to_environment

READY_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05
PROBE_SECONDS = 5.0


class Replica:
    """A process of a service with these settings, on a port of its own that it keeps.

    What it logs is appended to the file `log`. A `tethered` one ends with the thread that has started it.
    """

    def __init__(
        self, service: str, settings: Settings, log: Path, *, tethered: bool = True
    ) -> None:
        self.service = service
        self.port = free_ports(1)[0]
        own = msgspec.structs.replace(settings, ports={**settings.ports, service: self.port})
        self._client = SystemClient(own, timeout_seconds=PROBE_SECONDS)
        self._environment = to_environment(own)
        self._log = log
        self._tether = (
            (sys.executable, "-I", "-S", str(TETHER), str(os.getpid())) if tethered else ()
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process."""
        return self._started().pid

    @property
    def ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it, and wait until it is ready. Raises `TimeoutError`, and `ChildProcessError` if it ends."""
        self.launch(environment)
        self.until_ready()

    def configure(self, **changes: str) -> None:
        """Use these environment variables, too, from its next start on."""
        self._environment = {**self._environment, **changes}

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it without waiting; with another environment than that of its settings, if one is given."""
        if self._process is not None:
            self._wait()
        chosen = self._environment if environment is None else environment
        port = {f"TODOKU_{self.service.upper()}_PORT": str(self.port)}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*self._tether, *TODOKU, "run", self.service],
                env={**os.environ, **chosen, **port},
                stdin=subprocess.PIPE,  # the tether elsewhere than on Linux
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def until_ready(self) -> None:
        """Wait until it is ready. Raises `TimeoutError`, and `ChildProcessError` if it ends."""
        until(self.is_ready, f"{self.service} on port {self.port} is not ready")

    def is_ready(self) -> bool:
        """Return whether it answers that it is ready. Raises `ChildProcessError` if it has ended."""
        if self.ended:
            raise ChildProcessError(f"{self.service} on port {self.port} has ended")
        return self._client.is_ready(self.service)

    def metrics(self) -> Mapping[str, float]:
        """Return its metrics. Raises `HttpFailed`."""
        return self._client.metrics(self.service)

    def send(self, number: Signals) -> None:
        """Send it a signal."""
        self._started().send_signal(number)

    def stop(self) -> int:
        """Stop it as an operator does, and return its exit code; kill it if that takes too long."""
        self.send(SIGTERM)
        try:
            return self._wait()
        except subprocess.TimeoutExpired:
            self.send(SIGKILL)
            return self._wait()

    def kill(self) -> None:
        """Kill it if it runs."""
        if not self.ended:
            self.send(SIGKILL)
            self._wait()

    def _wait(self) -> int:
        process = self._started()
        code = process.wait(STOP_SECONDS_MAX)
        assert process.stdin is not None
        process.stdin.close()
        return code

    def _started(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it was not started"
        return self._process


def until(look: Callable[[], bool], complaint: str) -> None:
    """Wait until something is so. Raises `TimeoutError` with the complaint."""
    deadline = time.monotonic() + READY_SECONDS_MAX
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} after {READY_SECONDS_MAX:g} s")
        time.sleep(POLL_SECONDS)

"""Run any number of processes of each service, of this version or of the one before, behind HAProxy."""

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL, Signals

from todoku.lab.http import HttpClient, HttpFailed
from todoku.lab.stack import TODOKU, free_ports

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 90.0
HAPROXY = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
DEFAULTS = """
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 75s
  timeout check 2s
  option httpchk GET /readyz
  option redispatch
  retries 3
  retry-on conn-failure
  default-server check inter 500ms fall 2 rise 1
"""
"""As in `deploy/haproxy.cfg`."""


def until(look: Callable[[], bool], complaint: str) -> None:
    """Wait until something is so. Raises `TimeoutError`."""
    deadline = time.monotonic() + SECONDS_MAX
    while not look():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{complaint} after {SECONDS_MAX:g} s")
        time.sleep(0.1)


def source_of_the_last_release(folder: Path) -> dict[str, str]:
    """Unpack the last release, and return the environment in which Python imports it."""
    listed = tomllib.loads((ROOT / "tests/distribution/releases.toml").read_text())
    packed = folder / "release.tar"
    commit = listed["release"][0]["commit"]
    subprocess.run(["git", "archive", "-o", str(packed), commit, "src"], cwd=ROOT, check=True)
    shutil.unpack_archive(packed, folder / "release", filter="data")
    return {"PYTHONPATH": str(folder / "release" / "src")}


class Replica:
    """A process of a service on a port that it keeps."""

    def __init__(self, service: str, log: Path) -> None:
        self.service = service
        self.port = free_ports(1)[0]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, and wait until it is ready."""
        self.launch(environment)
        until(self.is_ready, f"{self.service} on port {self.port} is not ready")

    def launch(self, environment: Mapping[str, str]) -> None:
        """Start it, without waiting."""
        port = {f"TODOKU_{self.service.upper()}_PORT": str(self.port)}
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [*TODOKU, "run", self.service],
                env={**os.environ, **environment, **port},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process is None or self._process.poll() is not None

    def is_ready(self) -> bool:
        """Return whether it answers that it is ready. Raises `ChildProcessError` if it has ended."""
        if self.ended:
            raise ChildProcessError(f"{self.service} has ended: see {self._log}")
        try:
            return bool(HttpClient("127.0.0.1", self.port, timeout_seconds=2).get("/readyz"))
        except HttpFailed:
            return False

    def send(self, number: Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: Signals) -> int:
        """End it with a signal, and return its exit code."""
        self.send(number)
        assert self._process is not None
        return self._process.wait(SECONDS_MAX)

    def kill(self) -> None:
        """Kill it if it runs."""
        if not self.ended:
            self.end(SIGKILL)


@contextmanager
def balancer(
    folder: Path, ports: Mapping[str, int], replicas: Mapping[str, list[Replica]]
) -> Iterator[None]:
    """Run HAProxy with a port for each service, before all of its replicas."""
    config = folder / "haproxy.cfg"
    parts = [DEFAULTS]
    for name, those in replicas.items():
        parts.append(f"listen {name}\n  bind 127.0.0.1:{ports[name]}\n")
        parts += [f"  server {name}{n} 127.0.0.1:{each.port}\n" for n, each in enumerate(those)]
    config.write_text("".join(parts))
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen([str(HAPROXY), "-db", "-f", str(config)], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.kill()
        process.wait()

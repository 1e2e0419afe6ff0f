"""One system that asks callers for credentials and writes audit logs, and keys for agents."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from end_to_end.running import PORT_COUNT, Up, up


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Guarded(NamedTuple):
    """A running system that asks for credentials; the first key, and one of an agent."""

    up: Up
    folder: Path
    first_key: str
    agent_key: str

    def todoku(self, *words: str, key: str | None = None) -> str:
        """Run a command with the addresses of the system, and return what it prints."""
        command = [sys.executable, "-P", "-m", "todoku", *words]
        variables = {"PATH": "/usr/bin:/bin", "TODOKU_KEY": key or self.first_key}
        variables |= self.addresses()
        done = subprocess.run(
            command, cwd=self.folder, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def addresses(self) -> dict[str, str]:
        """Return variables with the addresses and the data folder of the system."""
        names = ("ORDERS_PORT", "INVENTORY_PORT", "SHIPPING_PORT", "NATS_PORT")
        ports = {
            f"TODOKU_{name}": str(port) for name, port in zip(names, self.up.ports, strict=True)
        }
        return {**ports, "TODOKU_DATA_DIR": str(self.folder / "data")}


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, free_ports: Callable[[int], list[int]]
) -> Iterator[Guarded]:
    """A running `todoku up` with `auth` = `required`, whose carrier is slow, and a product."""
    folder = tmp_path_factory.mktemp("guarded")
    key_file = folder / "first-key"
    flags = ("--auth", "required", "--bootstrap-key-file", str(key_file))
    with up(folder, free_ports(PORT_COUNT), *flags, "--carrier-delay-seconds", "600") as running:
        running.output.until("todoku is ready in ")
        system = Guarded(running, folder, key_file.read_text().strip(), "")
        words = ("key", "create", "--role", "operator", "--owner", "agent:night-watch", "--json")
        agent_key = json.loads(system.todoku(*words))["key"]
        yield system._replace(agent_key=agent_key)

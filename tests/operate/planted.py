"""What may go wrong by night: each breaks a system, and at its end repairs what is repaired outside."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import httpx

from faults import disks
from faults.postgres import PostgreSQL
from operate.carrier import ACCEPTS, HAS_BUG, IS_SLOW, RAISES
from todoku.broker.embedded import find_server, is_ready
from todoku.lab.chaos import faults, jetstream
from todoku.lab.replica import until
from todoku.lab.stack import Stack, free_ports

PLAIN: Final = "plain"
SMALL_DISK: Final = "small disk"
EXTERNAL_BROKER: Final = "external broker"
POSTGRESQL: Final = "PostgreSQL"

PLENTY: Final = "plenty"
SCARCE: Final = "scarce"

PAUSE: Final = {"target": "carrier", "reason": "Stocktaking until 18:00.", "by": "bob"}
"""What somebody asked for in the evening, and forgot."""


class ExternalBroker:
    """A NATS server beside the system, which nobody restarts."""

    def __init__(self, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self.url = f"nats://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        address = ("-a", "127.0.0.1", "-p", str(self.port))
        command = [find_server().path, *address, "-js", "-sd", self._folder]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        until(lambda: asyncio.run(is_ready(self.port)), "the broker is ready")

    def stop(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class System(NamedTuple):
    """A running system, the file that tells its carrier how to answer, and the broker or the database server
    that runs beside it, if one does."""

    stack: Stack
    carrier: Path
    broker: ExternalBroker | None = None
    server: PostgreSQL | None = None

    @property
    def data_dir(self) -> Path:
        """Its data folder."""
        return self.stack.settings.data_dir

    def set_carrier(self, behaviour: str) -> None:
        """Change how the carrier answers from now on."""
        self.carrier.write_text(behaviour, encoding="utf-8")

    def post(self, service: str, path: str, body: object) -> object:
        """Send a request to a service."""
        answer = httpx.post(
            f"{self.stack.url(service)}{path}", json=body, timeout=30, trust_env=False
        )
        answer.raise_for_status()
        return answer.json()

    def place(self, product: str = PLENTY, **more: object) -> str:
        """Place an order of alice; return its id.

        It names the price of `add_products`: the catalogue of orders may not have a new product yet.
        """
        item = {"productId": product, "quantity": 1, "price": 100}
        body = {"userId": "alice", "items": [item]} | more
        order = self.post("orders", "/orders", body)
        assert isinstance(order, dict)
        return str(order["id"])

    def place_held(self) -> str:
        """Place an order that is held, so that it has not ended when something breaks."""
        return self.place(holds=[{"holder": "fraud-review", "reason": "A new card."}])


Planted = AbstractContextManager[None]


@contextmanager
def changed_carrier(system: System, behaviour: str) -> Iterator[None]:
    """Let the carrier behave otherwise."""
    system.set_carrier(behaviour)
    try:
        yield
    finally:
        system.set_carrier(ACCEPTS)


def bug(system: System) -> Planted:
    """Let the decision of shipping raise."""
    return changed_carrier(system, HAS_BUG)


def raising(system: System) -> Planted:
    """Let each call to the carrier fail."""
    return changed_carrier(system, RAISES)


def slow(system: System) -> Planted:
    """Let each call to the carrier take seconds."""
    return changed_carrier(system, IS_SLOW)


def frozen(name: str) -> Callable[[System], Planted]:
    """Return what stops the process of a program; its connections stay open."""

    @contextmanager
    def planted(system: System) -> Iterator[None]:
        system.stack.freeze(name)
        yield

    return planted


def killed(name: str) -> Callable[[System], Planted]:
    """Return what kills a program that `up` starts again."""

    @contextmanager
    def planted(system: System) -> Iterator[None]:
        system.stack.kill(name)
        yield

    return planted


def kill_for_good(stack: Stack, name: str) -> None:
    """Kill a program, and stop what would start it again."""
    victim = stack.pid(name)
    os.kill(stack.pids()["up"], signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)


def gone(name: str) -> Callable[[System], Planted]:
    """Return what kills a program for good: what would start it again is stopped."""

    @contextmanager
    def planted(system: System) -> Iterator[None]:
        kill_for_good(system.stack, name)
        yield

    return planted


@contextmanager
def up_killed(system: System) -> Iterator[None]:
    """Kill `up`, and with it everything."""
    system.stack.kill_up()
    yield
    system.stack.start()


@contextmanager
def external_broker_down(system: System) -> Iterator[None]:
    """Stop the broker that runs beside the system."""
    assert system.broker is not None
    system.broker.stop()
    yield
    system.broker.start()


@contextmanager
def server_down(system: System) -> Iterator[None]:
    """Stop PostgreSQL."""
    assert system.server is not None
    system.server.stop()
    yield
    system.server.start()


@contextmanager
def disk_full(system: System) -> Iterator[None]:
    """Fill the disk of the databases to the last byte."""
    disks.fill(system.data_dir)
    try:
        yield
    finally:
        disks.free(system.data_dir)


@contextmanager
def database_locked(system: System) -> Iterator[None]:
    """Hold the write lock of shipping's database, as another program does."""
    with faults.database_locked(system.stack, "shipping"):
        yield


@contextmanager
def broker_wiped(system: System) -> Iterator[None]:
    """Kill the broker, and delete its files."""
    with faults.broker_dead(system.stack) as files:
        shutil.rmtree(files)
    yield


@contextmanager
def broker_flipped(system: System) -> Iterator[None]:
    """Kill the broker, and flip bytes of its files."""
    faults.flip_broker_bytes(system.stack, Random(1))
    yield


@contextmanager
def broker_rolled_back(system: System) -> Iterator[None]:
    """Replace the broker's files by an older copy of themselves."""
    image = system.data_dir.with_name("image")
    with faults.broker_dead(system.stack) as files:
        shutil.copytree(files, image)
    system.place()
    with faults.broker_dead(system.stack) as files:
        shutil.rmtree(files)
        shutil.copytree(image, files)
    yield


@contextmanager
def stream_deleted(system: System) -> Iterator[None]:
    """Delete the stream."""
    jetstream.delete_stream(system.stack.settings)
    yield


@contextmanager
def stream_purged(system: System) -> Iterator[None]:
    """Delete all messages of the stream."""
    jetstream.purge_stream(system.stack.settings)
    yield


@contextmanager
def durable_deleted(system: System) -> Iterator[None]:
    """Delete the durable consumer of shipping."""
    jetstream.delete_durable(system.stack.settings, "shipping")
    yield


@contextmanager
def database_deleted(system: System) -> Iterator[None]:
    """Delete the database of shipping under the running service."""
    for file in system.data_dir.glob("shipping.db*"):
        if file.suffix != ".lock":
            file.unlink()
    yield


@contextmanager
def database_lost(system: System) -> Iterator[None]:
    """Lose the database of shipping, and the messages that it could be made from."""
    jetstream.purge_stream(system.stack.settings)
    with database_deleted(system):
        yield


def wait_for_stock(system: System) -> str:
    """Place an order that waits for stock."""
    return system.place(SCARCE, onShortage="wait")


@contextmanager
def sold_out(system: System) -> Iterator[None]:
    """Sell the last piece of a product."""
    system.stack.client.add_products({SCARCE: 1})
    system.place(SCARCE)
    yield


@contextmanager
def carrier_paused(system: System) -> Iterator[None]:
    """Pause the calls to the carrier."""
    system.post("shipping", "/pauses", PAUSE)
    yield


@contextmanager
def nothing(_: System) -> Iterator[None]:
    """The order itself is the case."""
    yield

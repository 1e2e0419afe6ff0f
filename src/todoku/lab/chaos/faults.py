"""Injects faults that need no root. Each one has healed when its function returns."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import msgspec

from todoku.database.lock import FileLock
from todoku.lab.chaos import jetstream
from todoku.lab.stack import Stack

FROZEN_SECONDS = (0.2, 6.0)
LOCKED_SECONDS = (0.2, 8.0)
"""Shortest and longest duration; the longest exceed every timeout for a lock."""

PAUSED_SECONDS = (1.0, 10.0)
RESUMED_PER_SECOND = 200

FLIPPED_BYTES = 64

Fault = Callable[[Stack, Random], None]
"""Breaks a part of a stack; the random generator decides which, and for how long."""


def kill_service(stack: Stack, dice: Random) -> None:
    """Kill a service with SIGKILL."""
    _kill(stack, dice.choice(stack.services))


def kill_broker(stack: Stack, _: Random) -> None:
    """Kill the broker with SIGKILL."""
    _kill(stack, "broker")


def kill_up(stack: Stack, _: Random) -> None:
    """Kill `todoku up` with SIGKILL, and with it everything; start again."""
    stack.kill_up()
    stack.start()


def stop_and_start(stack: Stack, _: Random) -> None:
    """Interrupt as Ctrl-C does, and start again."""
    stack.stop()
    stack.start()


def freeze_service(stack: Stack, dice: Random) -> None:
    """Freeze a service with SIGSTOP for some seconds."""
    _freeze(stack, dice.choice(stack.services), dice)


def freeze_broker(stack: Stack, dice: Random) -> None:
    """Freeze the broker with SIGSTOP for some seconds."""
    _freeze(stack, "broker", dice)


def wipe_broker(stack: Stack, _: Random) -> None:
    """Kill the broker, and delete its files while it is dead."""
    with broker_dead(stack) as files:
        shutil.rmtree(files)


def flip_broker_bytes(stack: Stack, dice: Random) -> None:
    """Kill the broker, and flip bytes of its files while it is dead."""
    with broker_dead(stack) as files:
        for _ in range(FLIPPED_BYTES):
            file = dice.choice([path for path in sorted(files.rglob("*")) if path.is_file()])
            flip_byte(file, dice)


def delete_stream(stack: Stack, _: Random) -> None:
    """Delete the stream through JetStream's API."""
    jetstream.delete_stream(stack.settings)


def purge_stream(stack: Stack, _: Random) -> None:
    """Purge the stream through JetStream's API."""
    jetstream.purge_stream(stack.settings)


def delete_durable(stack: Stack, dice: Random) -> None:
    """Delete a service's durable consumer through JetStream's API."""
    jetstream.delete_durable(stack.settings, dice.choice(stack.services))


def lock_database(stack: Stack, dice: Random) -> None:
    """Hold the write lock of a database for some seconds."""
    with database_locked(stack, dice.choice(stack.services)):
        time.sleep(dice.uniform(*LOCKED_SECONDS))


def pause_carrier(stack: Stack, dice: Random) -> None:
    """Pause the carrier for some seconds, kill shipping meanwhile, and resume at a rate."""
    shipping = stack.client.service("shipping")
    pause = {"target": "carrier", "reason": "chaos", "by": "chaos"}
    answer = shipping.request("POST", "/pauses", pause, allowed=(201,))
    pause_id = msgspec.json.decode(answer.body)["id"]
    _kill(stack, "shipping")
    time.sleep(dice.uniform(*PAUSED_SECONDS))
    end = {"by": "chaos", "rate": RESUMED_PER_SECOND}
    shipping.request("POST", f"/pauses/{pause_id}/resume", end)


FAULTS: Mapping[str, Fault] = {
    "service killed": kill_service,
    "broker killed": kill_broker,
    "up killed": kill_up,
    "Ctrl-C and start": stop_and_start,
    "service frozen": freeze_service,
    "broker frozen": freeze_broker,
    "broker's files deleted": wipe_broker,
    "broker's bytes flipped": flip_broker_bytes,
    "stream deleted": delete_stream,
    "stream purged": purge_stream,
    "durable deleted": delete_durable,
    "database locked": lock_database,
    "carrier paused": pause_carrier,
}
"""Every fault by name."""


@contextmanager
def broker_dead(stack: Stack) -> Iterator[Path]:
    """Yield the folder of the broker's files while the broker is dead."""
    # Freeze first and kill last: `up` would restart a dead broker at once.
    stack.freeze("broker")
    try:
        yield stack.settings.data_dir / "broker"
    finally:
        _kill(stack, "broker")


@contextmanager
def database_locked(stack: Stack, service: str) -> Iterator[None]:
    """Hold the write lock of a service's database. Nothing is written."""
    address = f"file:{stack.settings.database(service)}?mode=rw"
    with closing(
        sqlite3.connect(address, uri=True, timeout=60, isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def service_away(stack: Stack, service: str) -> Iterator[None]:
    """Keep a service from running, by the lock of its database."""
    database = Path(stack.settings.database(service))
    stack.kill(service)
    lock = FileLock(database.with_name(database.name + ".lock"), wait_seconds=10)
    try:
        yield
    finally:
        lock.release()


def flip_byte(file: Path, dice: Random) -> None:
    """Invert the bits of one random byte; do nothing to an empty file."""
    size = file.stat().st_size
    if size == 0:
        return
    with file.open("r+b") as content:
        place = dice.randrange(size)
        content.seek(place)
        (byte,) = content.read(1)
        content.seek(place)
        content.write(bytes([byte ^ 0xFF]))


def _kill(stack: Stack, name: str) -> None:
    stack.kill(name)
    stack.until_ready()


def _freeze(stack: Stack, name: str, dice: Random) -> None:
    stack.freeze(name)
    time.sleep(dice.uniform(*FROZEN_SECONDS))
    stack.thaw(name)

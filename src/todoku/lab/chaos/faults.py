"""The faults that need no root. Each strikes once, and heals before it returns."""

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

from todoku.database.lock import FileLock
from todoku.lab.chaos import jetstream
from todoku.lab.chaos.stack import ProgramName, Stack

FROZEN_SECONDS = (0.2, 6.0)
LOCKED_SECONDS = (0.2, 8.0)
"""From and to how long; the longer ones are longer than anybody waits for a lock."""

FLIPPED_BYTES = 64

Fault = Callable[[Stack, Random], None]
"""Something that happens to a stack; the dice decide to what part of it, and for how long."""


def kill_service(stack: Stack, dice: Random) -> None:
    """`kill -9` of a service."""
    _kill(stack, dice.choice(stack.services))


def kill_broker(stack: Stack, _: Random) -> None:
    """`kill -9` of the broker."""
    _kill(stack, "broker")


def kill_up(stack: Stack, _: Random) -> None:
    """`kill -9` of `todoku up`, and with it of everything; then a new start."""
    stack.kill_up()
    stack.start()


def stop_and_start(stack: Stack, _: Random) -> None:
    """Ctrl-C, and a new start."""
    stack.stop()
    stack.start()


def freeze_service(stack: Stack, dice: Random) -> None:
    """SIGSTOP of a service, and SIGCONT some seconds later."""
    _freeze(stack, dice.choice(stack.services), dice)


def freeze_broker(stack: Stack, dice: Random) -> None:
    """SIGSTOP of the broker, and SIGCONT some seconds later."""
    _freeze(stack, "broker", dice)


def wipe_broker(stack: Stack, _: Random) -> None:
    """`kill -9` of the broker, and its files are deleted while it is dead."""
    with broker_dead(stack) as files:
        shutil.rmtree(files)


def flip_broker_bytes(stack: Stack, dice: Random) -> None:
    """`kill -9` of the broker, and bytes of its files are flipped while it is dead."""
    with broker_dead(stack) as files:
        for _ in range(FLIPPED_BYTES):
            file = dice.choice([path for path in sorted(files.rglob("*")) if path.is_file()])
            flip_byte(file, dice)


def delete_stream(stack: Stack, _: Random) -> None:
    """The stream is deleted through JetStream's API."""
    jetstream.delete_stream(stack.settings)


def purge_stream(stack: Stack, _: Random) -> None:
    """The stream is emptied through JetStream's API."""
    jetstream.purge_stream(stack.settings)


def delete_durable(stack: Stack, dice: Random) -> None:
    """A service's durable consumer is deleted through JetStream's API."""
    jetstream.delete_durable(stack.settings, dice.choice(stack.services))


def lock_database(stack: Stack, dice: Random) -> None:
    """Another program holds the write lock of a database for some seconds."""
    with database_locked(stack, dice.choice(stack.services)):
        time.sleep(dice.uniform(*LOCKED_SECONDS))


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
}
"""Every fault by its name."""


@contextmanager
def broker_dead(stack: Stack) -> Iterator[Path]:
    """The folder of the broker's files, while nobody is there who would write into it."""
    # Frozen first and killed last: `up` would start it again before we have done anything.
    stack.freeze("broker")
    try:
        yield stack.settings.data_dir / "broker"
    finally:
        _kill(stack, "broker")


@contextmanager
def database_locked(stack: Stack, service: str) -> Iterator[None]:
    """Another connection has the write lock of a service's database. It writes nothing."""
    address = f"file:{stack.settings.database(service)}?mode=rw"
    with closing(
        sqlite3.connect(address, uri=True, timeout=60, isolation_level=None)
    ) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def service_away(stack: Stack, service: str) -> Iterator[None]:
    """A service is dead and cannot be started, because somebody else claims its database."""
    database = Path(stack.settings.database(service))
    stack.kill(service)
    lock = FileLock(database.with_name(database.name + ".lock"), wait_seconds=10)
    try:
        yield
    finally:
        lock.release()


def flip_byte(file: Path, dice: Random) -> None:
    """Turn around the bits of one byte, wherever; in an empty file there is none."""
    size = file.stat().st_size
    if size == 0:
        return
    with file.open("r+b") as content:
        place = dice.randrange(size)
        content.seek(place)
        (byte,) = content.read(1)
        content.seek(place)
        content.write(bytes([byte ^ 0xFF]))


def _kill(stack: Stack, name: ProgramName) -> None:
    stack.kill(name)
    stack.until_ready()


def _freeze(stack: Stack, name: ProgramName, dice: Random) -> None:
    stack.freeze(name)
    time.sleep(dice.uniform(*FROZEN_SECONDS))
    stack.thaw(name)

"""Test disks that are full, fail to sync, or lose their power."""

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from broker_access import operator_options
from faults.conftest import Prove
from faults.disks import needs_root, small_disk
from todoku.broker import embedded
from todoku.broker.nats import NatsBroker
from todoku.broker.port import BrokerError, Outgoing
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import Stack, isolated_settings
from todoku.settings import Settings
from todoku.system import system

pytestmark = pytest.mark.faults

FULL_SECONDS = 12.0
"""Longer than the longest pause between retries."""

SYNCED = 200
"""How many writes a control makes before its power is cut."""

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="injects errors with strace")


@needs_root
def test_a_full_disk_under_the_broker(
    tmp_path: Path, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """Orders are accepted while the broker can store nothing, and end once there is space again."""
    with small_disk(tmp_path / "data" / "broker", 96) as disk:
        stack = make_stack(stream_max_bytes=2**25)
        stack.start()
        prepare_products(stack)
        with OrderLoad(stack) as load:
            load.until_accepted(300)
            disk.fill()
            load.until_accepted(300)
            load.go_on_for(FULL_SECONDS)
            disk.free()
            load.until_accepted(300)
        restarts = stack.output.count("does not work")
        prove(
            stack, load, injected=1, within_seconds=120, note=f"broker restarted {restarts} times"
        )
        stack.kill_up()


@needs_root
@pytest.mark.parametrize("service", system.names)
def test_a_full_disk_under_the_database_of(
    service: str, tmp_path: Path, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """Commands wait while nothing can be committed, and continue once there is space again."""
    with small_disk(tmp_path / "small", 48) as disk:
        url = f"sqlite:///{disk.path / service}.db"
        stack = make_stack(**{f"{service}_database_url": url})
        stack.start()
        prepare_products(stack)
        with OrderLoad(stack) as load:
            load.until_accepted(300)
            disk.fill()
            load.go_on_for(FULL_SECONDS)
            disk.free()
            stack.until_ready()
            load.until_accepted(300)
        prove(
            stack, load, injected=1, note=f"{load.refused + load.unknown} requests without success"
        )
        stack.kill_up()


@needs_strace
@pytest.mark.parametrize("service", system.names)
def test_a_sync_that_fails_under(service: str, tmp_path: Path, stack: Stack, prove: Prove) -> None:
    """A service ends at once after a failed sync and never retries it; its next start reads what is
    on the disk."""
    with OrderLoad(stack) as load:
        load.until_accepted(300)
        with failing_syncs(stack.pid(service), tmp_path):
            stack.output.until(f"{service} ended with exit code")
        stack.until_ready()
        load.until_accepted(300)
    said = next(line for line in stack.output.lines if f"{service} ended" in line)
    prove(stack, load, injected=1, note=said)


@needs_strace
def test_a_sync_that_fails_under_the_broker(tmp_path: Path, stack: Stack, prove: Prove) -> None:
    """A broker whose sync fails is detected and restarted, and nothing is lost."""
    with OrderLoad(stack) as load:
        load.until_accepted(300)
        with failing_syncs(stack.pid("broker"), tmp_path):
            stack.output.until("starting it again", 90)
        stack.until_ready()
        load.until_accepted(300)
    said = next(line for line in stack.output.lines if line.startswith("broker"))
    prove(stack, load, injected=1, note=said)


@needs_root
def test_power_cuts(tmp_path: Path, make_stack: Callable[..., Stack], prove: Prove) -> None:
    """No accepted order is lost in a power cut of databases and broker at once."""
    cuts = 4
    with small_disk(tmp_path / "data", 512) as disk:
        stack = make_stack(stream_max_bytes=2**26)
        stack.start()
        prepare_products(stack)
        with OrderLoad(stack) as load:
            for _ in range(cuts):
                load.until_accepted(300)
                load.disconnect()
                disk.cut_power()
                stack.kill_up()
                disk.power_on()
                load.reconnect()
                stack.start()
            load.until_accepted(100)
        prove(stack, load, injected=cuts)
        stack.kill_up()


@needs_root
def test_a_power_cut_that_must_lose_something_of_sqlite(tmp_path: Path) -> None:
    """The control: with synchronous=NORMAL a power cut takes what was committed. If this fails,
    the power cut is none, and the test above proves nothing."""
    with small_disk(tmp_path / "small", 64) as disk:
        file = disk.path / "control.db"
        connection = sqlite3.connect(file, isolation_level=None)
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA synchronous = normal")
        connection.execute("CREATE TABLE rows (n INTEGER)")
        for n in range(SYNCED):
            connection.execute("INSERT INTO rows VALUES (?)", (n,))
        disk.cut_power()
        with pytest.raises(sqlite3.Error):
            connection.execute("INSERT INTO rows VALUES (0)")
        connection.close()
        disk.power_on()

        assert rows_in(file) < SYNCED


@needs_root
def test_a_power_cut_that_must_lose_something_of_nats(tmp_path: Path) -> None:
    """The control: with its default sync_interval the broker loses what it has acknowledged, and
    with ours it does not."""
    for sync_interval, lost in ((None, True), ("always", False)):
        with small_disk(tmp_path / f"disk-{sync_interval}", 64) as disk:
            settings = isolated_settings(disk.path, stream_max_bytes=2**24)
            with server(settings, sync_interval):
                asyncio.run(publish(settings, SYNCED))
                disk.cut_power()
            disk.power_on()
            with server(settings, sync_interval):
                assert (asyncio.run(stored(settings)) < SYNCED) is lost


def rows_in(file: Path) -> int:
    """How many rows a power cut has left; none if even the table is gone."""
    connection = sqlite3.connect(file)
    try:
        (count,) = connection.execute("SELECT count(*) FROM rows").fetchone()
        return int(count)
    except sqlite3.Error:
        return 0
    finally:
        connection.close()


@contextmanager
def server(settings: Settings, sync_interval: str | None) -> Iterator[None]:
    """The broker alone, with our own configuration but for this."""
    embedded.write_config(settings)
    argv = embedded.argv(embedded.find_server(), settings)
    file = Path(argv[-1])
    config = msgspec.json.decode(file.read_bytes())
    del config["jetstream"]["sync_interval"]
    if sync_interval:
        config["jetstream"]["sync_interval"] = sync_interval
    file.write_bytes(msgspec.json.encode(config))
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def failing_syncs(pid: int, folder: Path) -> Iterator[None]:
    """Let every fsync and fdatasync of a process fail with EIO."""
    calls = "fsync,fdatasync"
    log = folder / "strace"
    with log.open("w") as err:
        strace = subprocess.Popen(
            ["strace", "-f", "-p", str(pid), f"-etrace={calls}", f"-einject={calls}:error=EIO"],
            stderr=err,
        )
    try:
        while "attached" not in (said := log.read_text()):
            if strace.poll() is not None:
                pytest.skip(f"strace may not do this here: {said}")
        yield
    finally:
        strace.terminate()
        strace.wait()


async def publish(settings: Settings, count: int) -> None:
    """Store that many messages, one after the other, each acknowledged."""
    broker = NatsBroker(
        settings.broker_url,
        max_bytes=settings.stream_max_bytes,
        options=operator_options(settings.data_dir),
    )
    await broker.start()
    async with asyncio.timeout(30):
        for n in range(count):
            await until_done(broker, n)
    await broker.stop()


async def until_done(broker: NatsBroker, n: int) -> None:
    """Store a message, as soon as the broker is there."""
    while True:
        try:
            await broker.publish([Outgoing("orders.created", b"%d" % n)])
            return
        except BrokerError:
            await asyncio.sleep(0.05)


async def stored(settings: Settings) -> int:
    """How far the stream is."""
    broker = NatsBroker(
        settings.broker_url,
        max_bytes=settings.stream_max_bytes,
        options=operator_options(settings.data_dir),
    )
    await broker.start()
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    return (await broker.progress([])).last_sequence
                except BrokerError:
                    await asyncio.sleep(0.05)
    finally:
        await broker.stop()

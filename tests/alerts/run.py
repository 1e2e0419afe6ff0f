"""Show that alerts fire in real faults: run systems, break each in its way, and ask a real Prometheus.

make alerts ARGS="broker disk"
make alerts ARGS="calm"    # half an hour in which none may fire
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError

import nats
from nats.js.api import StorageType

sys.path.insert(0, str(Path(__file__).parents[1]))

from alerts.watching import LOOK_SECONDS, watching
from broker_access import connect_as_operator
from faults import disks
from todoku.broker.embedded import find_server, is_ready
from todoku.lab.stack import Stack, free_ports, isolated_settings
from todoku.settings import Settings, Span, to_environment

SECONDS_MAX: Final = 120.0
CALM: Final = "calm"
CALM_MINUTES: Final = 30.0
DISK_BYTES: Final = 200 * 2**20
ORDERS_A_SECOND: Final = 20
PRODUCT: Final = "plenty"
PRICE: Final = 100

AHEAD: Final = "+30s"
REAL_MONOTONIC_CLOCK: Final = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}

NOT_RUN: Final = {
    "TodokuPaused": "fires after an hour by design",
    "TodokuDatabaseMetricsMissing": "fires after two minutes in which a database answers to no read",
}
"""Alerts that no short run shows, and why; promtool tests them."""


class Scenario(NamedTuple):
    """A fault, the settings of the system that it hits, and the alerts that have to fire. With `from_start`,
    the settings are a fault themselves, so the time begins with the first order."""

    name: str
    alerts: set[str]
    settings: dict[str, Any]
    break_it: Callable[[Stack, Path], None]
    from_start: bool = False


class Load:
    """Places orders in a thread until the end, whatever is answered; `placed` counts them."""

    def __init__(self, stack: Stack) -> None:
        self.placed = 0
        self._stack = stack
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1 / ORDERS_A_SECOND):
            place_order(self._stack)
            self.placed += 1


def place_order(stack: Stack) -> None:
    """Place an order; whether it was accepted is for the alerts to say."""
    body = {"userId": "u", "items": [{"productId": PRODUCT, "quantity": 1, "price": PRICE}]}
    request = urllib.request.Request(
        f"{stack.url('orders')}/orders",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=5).close()
    except HTTPError as refused:
        refused.close()
    except (URLError, OSError):
        pass


def freeze_and_kill(stack: Stack, folder: Path) -> None:
    """Kill inventory where nobody restarts it."""
    victim = stack.pid("inventory")
    os.kill(stack.pids()["up"], signal.SIGSTOP)
    os.kill(victim, signal.SIGKILL)


def poison(stack: Stack, folder: Path) -> None:
    """Publish messages that no service can read."""

    async def publish() -> None:
        port, data_dir = stack.settings.nats_port, stack.settings.data_dir
        async with await connect_as_operator(port, data_dir) as connection:
            for number in range(20):
                await connection.jetstream().publish("orders.created", b"\xff %d" % number)

    asyncio.run(publish())


def kill_broker(stack: Stack, folder: Path) -> None:
    """Kill the broker that runs beside the system."""
    os.kill(int((folder / "broker.pid").read_text()), signal.SIGKILL)


def fill_disk(stack: Stack, folder: Path) -> None:
    """Fill the disk of the databases."""
    disks.fill(stack.settings.data_dir)


def lose_database(stack: Stack, folder: Path) -> None:
    """Lose the database of inventory, whose products are older than what the stream has."""
    stack.stop()
    for file in stack.settings.data_dir.glob("inventory.db*"):
        file.unlink()
    stack.start()


def nothing(stack: Stack, folder: Path) -> None:
    """The settings are the fault."""


SCENARIOS: Final = (
    Scenario(
        "carrier",
        {"TodokuCarrierFails", "TodokuCarrierSlow", "TodokuProcessDown"},
        {"carrier": "alerts.carrier:failing"},
        freeze_and_kill,
        from_start=True,
    ),
    Scenario(
        "slow",
        {"TodokuFreshnessBurnFast", "TodokuFreshnessBurnSlow"},
        {"carrier_delay_seconds": Span(65, 66)},
        nothing,
        from_start=True,
    ),
    Scenario(
        "poison",
        {"TodokuDeadLetters", "TodokuCorrectnessBurnFast", "TodokuCorrectnessBurnSlow"},
        {},
        poison,
    ),
    Scenario(
        "broker",
        {
            "TodokuBrokerAway",
            "TodokuDeliveriesLate",
            "TodokuDueRowsLate",
            "TodokuCompletenessBurnFast",
            "TodokuCompletenessBurnSlow",
        },
        {"order_deadline_seconds": 20.0, "order_deadline_grace_seconds": 0.0},
        kill_broker,
    ),
    Scenario(
        "disk",
        {
            "TodokuDiskFull",
            "TodokuDatabaseUnavailable",
            "TodokuAcceptanceBurnFast",
            "TodokuAcceptanceBurnSlow",
        },
        {},
        fill_disk,
        from_start=True,  # The disk is small from the beginning.
    ),
    Scenario("lost", {"TodokuRecoveryWaits"}, {}, lose_database),
    Scenario(
        "clock",
        {"TodokuClockOff", "TodokuBrokerMisconfigured"},
        {},
        nothing,
        from_start=True,
    ),
)


def main() -> int:
    """Run the scenarios; return 1 if an alert did not fire in time."""
    options = ArgumentParser(description=__doc__.splitlines()[0])
    names = [*(each.name for each in SCENARIOS), CALM]
    options.add_argument("scenarios", nargs="*", metavar="scenario", help=", ".join(names))
    options.add_argument("--minutes", type=float, default=CALM_MINUTES, help=f"how long {CALM} is")
    given = options.parse_args()
    chosen = given.scenarios
    if unknown := set(chosen).difference(names):
        options.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    if shutil.which("prometheus") is None:
        print("Prometheus is absent: apt-get install prometheus", file=sys.stderr)
        return 2
    missing = CALM in chosen and not is_calm(given.minutes)
    for scenario in SCENARIOS:
        if chosen and scenario.name not in chosen:
            continue
        if scenario.name == "disk" and os.geteuid() != 0:
            print("disk: skipped, since only root may mount a small disk")
            continue
        if scenario.name == "clock" and faketime() is None:
            print("clock: skipped, since libfaketime is absent: apt-get install faketime")
            continue
        with tempfile.TemporaryDirectory() as folder:
            found = run(scenario, Path(folder))
        for name in sorted(scenario.alerts):
            seconds = found.get(name)
            missing |= seconds is None
            told = f"not within {SECONDS_MAX:.0f} s" if seconds is None else f"{seconds:5.0f} s"
            print(f"{scenario.name:<8} {name:<30} {told}", flush=True)
    for name, why in NOT_RUN.items():
        if not chosen:
            print(f"{'-':<8} {name:<30} {why}")
    return int(missing)


def is_calm(minutes: float) -> bool:
    """Run a system that nothing happens to, with the simulated carrier and its failures; return whether no
    alert fired."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack_of:
        settings = isolated_settings(Path(folder) / "data")
        stack = stack_of.enter_context(started(settings, Path(folder), {}))
        prometheus = stack_of.enter_context(watching(stack, Path(folder)))
        load = stack_of.enter_context(Load(stack))
        fired: dict[str, float] = {}
        begun = time.monotonic()
        while (seconds := time.monotonic() - begun) < 60 * minutes:
            for name in prometheus.firing() - fired.keys():
                fired[name] = seconds
                print(f"{CALM:<8} {name:<30} {seconds:5.0f} s", flush=True)
            time.sleep(LOOK_SECONDS)
        print(f"{CALM:<8} {len(fired)} alerts in {minutes:g} minutes and {load.placed:,} orders")
    return not fired


def run(scenario: Scenario, folder: Path) -> dict[str, float]:
    """Run one scenario; return after how many seconds each of its alerts fired."""
    with ExitStack() as stack_of:
        settings = dict(scenario.settings)
        more: dict[str, str] = {}
        if scenario.name in ("broker", "clock"):
            settings["nats_url"] = stack_of.enter_context(broker(folder))
        if scenario.name == "clock":
            asyncio.run(make_unsuitable_stream(settings["nats_url"]))
            more = {"LD_PRELOAD": str(faketime()), "FAKETIME": AHEAD} | REAL_MONOTONIC_CLOCK
        data_dir = folder / "data"
        if scenario.name == "disk":
            stack_of.enter_context(small_disk(data_dir))
        own = isolated_settings(data_dir, **settings)
        stack = stack_of.enter_context(started(own, folder, more))
        prometheus = stack_of.enter_context(watching(stack, folder))
        if scenario.name == "lost":
            asyncio.run(purge_stream(stack.settings))
        begins = time.monotonic()
        stack_of.enter_context(Load(stack))
        if scenario.name == "broker":
            pause_carrier(stack)
        time.sleep(15)  # Rates need a time before the fault.
        broken = time.monotonic()
        scenario.break_it(stack, folder)
        since = begins if scenario.from_start else broken
        return prometheus.wait_for(scenario.alerts, since, SECONDS_MAX)


@contextmanager
def started(settings: Settings, folder: Path, more: dict[str, str]) -> Iterator[Stack]:
    """Run a system that finds the carrier of this folder, with more in its environment."""
    environment = to_environment(settings) | {"PYTHONPATH": str(Path(__file__).parents[1])} | more
    with Stack(settings, folder / "log", environment=environment) as stack:
        stack.start()
        stack.client.add_products({PRODUCT: 1_000_000})
        yield stack


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Run a NATS server beside the system, which nobody restarts; yield its address."""
    [port] = free_ports(1)
    command = [
        find_server().path,
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "-js",
        "-sd",
        folder / "nats",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        (folder / "broker.pid").write_text(str(process.pid))
        try:
            while not asyncio.run(is_ready(port)):
                time.sleep(0.1)
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.kill()


def faketime() -> Path | None:
    """Return the library that gives a process another clock, if it is installed."""
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


async def make_unsuitable_stream(url: str) -> None:
    """Create the stream in memory, which no service may change: it would have to delete it."""
    connection = await nats.connect(url)
    await connection.jetstream().add_stream(
        name=Settings().stream_name, subjects=["orders.>"], storage=StorageType.MEMORY
    )
    await connection.close()


async def purge_stream(settings: Settings) -> None:
    """Remove what the stream has had until now, as its age does in time."""
    async with await connect_as_operator(settings.nats_port, settings.data_dir) as connection:
        await connection.jetstream().purge_stream(settings.stream_name)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small disk at a folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def pause_carrier(stack: Stack) -> None:
    """Pause the calls to the carrier, so that parcels become due and wait."""
    request = urllib.request.Request(
        f"{stack.url('shipping')}/pauses",
        json.dumps({"target": "carrier", "reason": "a test", "by": "alerts"}).encode(),
        {"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, timeout=10).close()


if __name__ == "__main__":
    sys.exit(main())

"""Test a wall clock that is set while a service runs, by Debian's libfaketime."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from todoku.lab.stack import TODOKU, isolated_settings
from todoku.lab.system_client import SystemClient
from todoku.settings import Settings, to_environment

pytestmark = pytest.mark.faults

FOLLOWED_SECONDS_MAX = 5.0
ALLOWANCE = timedelta(seconds=1)
"""For the request itself, on a busy machine."""

START_SECONDS_MAX = 60.0


class Order(msgspec.Struct, rename="camel"):
    id: str
    created_at: datetime


class Ready(msgspec.Struct):
    time: datetime


def libfaketime() -> Path:
    """Return the library: Debian's, or the one that LIBFAKETIME names."""
    if named := os.environ.get("LIBFAKETIME"):
        return Path(named)
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("libfaketime is absent: apt-get install libfaketime, or name it in LIBFAKETIME")
    return found[0]


@contextmanager
def orders_service(settings: Settings, timestamp: Path, log: Path) -> Iterator[SystemClient]:
    """Run the orders service, without a broker, by a clock that is set in the file `timestamp`.

    Not `up`: libfaketime 0.9.10 breaks the waits of Python's `subprocess`.
    """
    environment = {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_TIMESTAMP_FILE": str(timestamp),
        "TODOKU_NATS_URL": "nats://127.0.0.1:1",
    }
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*TODOKU, "run", "orders"],
            env={**os.environ, **to_environment(settings), **environment},
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            client = SystemClient(settings)
            wait_until(lambda: client.is_ready("orders"), START_SECONDS_MAX)
            yield client
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"not within {seconds:g} s"


def place_order(client: SystemClient) -> Order:
    body = {
        "userId": "alice",
        "items": [{"productId": "p1", "quantity": 1, "price": 100}],
        "shippingAddress": "1-1 Chiyoda",
    }
    answer = client.service("orders").request("POST", "/orders", body, allowed=(201,))
    return msgspec.json.decode(answer.body, type=Order)


def engine_time(client: SystemClient) -> datetime:
    return msgspec.json.decode(client.service("orders").get("/readyz"), type=Ready).time


@pytest.mark.parametrize("hours", [-8, 8])
def test_a_clock_that_is_corrected_while_a_service_runs(hours: int, tmp_path: Path) -> None:
    """Stamps follow within 5 s, and earlier ones stay."""
    timestamp, log = tmp_path / "time", tmp_path / "log"
    timestamp.write_text(f"{hours:+d}h\n")
    settings = isolated_settings(tmp_path / "data")
    with orders_service(settings, timestamp, log) as client:
        before = place_order(client)
        expected = datetime.now(UTC) + timedelta(hours=hours)
        assert abs(before.created_at - expected) < timedelta(minutes=1), "the clock is not faked"

        timestamp.write_text("+0\n")
        wait_until(
            lambda: abs(engine_time(client) - datetime.now(UTC)) < ALLOWANCE, FOLLOWED_SECONDS_MAX
        )

        assert abs(place_order(client).created_at - datetime.now(UTC)) < ALLOWANCE
        found = client.service("orders").get(f"/orders/{before.id}")
        assert msgspec.json.decode(found, type=Order) == before
    assert "wall_clock_corrected" in log.read_text()

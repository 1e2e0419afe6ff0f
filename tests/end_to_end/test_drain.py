"""A service that is told to stop drains first: a balancer notices it, and closes its connections itself."""

import contextlib
import http.client
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ORDER = {"userId": "user123", "items": [{"productId": "prod001", "quantity": 2, "price": 5000}]}
BOUND_SECONDS = 60.0


class Orders:
    """A process of the orders service, without a broker."""

    def __init__(self, folder: Path, port: int, *flags: str, drain: int = 3600) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "todoku", "run", "orders", f"--drain-seconds={drain}"),
                *(f"--data-dir={folder}", f"--orders-port={port}", "--nats-url=nats://127.0.0.1:9"),
                *flags,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def connection(self) -> "contextlib.closing[http.client.HTTPConnection]":
        return contextlib.closing(
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_SECONDS)
        )

    def readiness(self) -> tuple[int, str | None]:
        """Return what `/readyz` answers on a new connection; 0 if nothing listens yet."""
        with contextlib.suppress(OSError), self.connection() as new:
            return ask(new, "GET", "/readyz")
        return 0, None


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, body: object = None
) -> tuple[int, str | None]:
    """Return the status of a response and its `Connection` header."""
    content = None if body is None else json.dumps(body)
    connection.request(method, path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    return response.status, response.getheader("Connection")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def orders(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Orders]:
    orders = Orders(tmp_path, free_ports(1)[0])
    try:
        until(lambda: orders.readiness()[0] == 200)
        yield orders
    finally:
        orders.process.kill()
        orders.process.wait(BOUND_SECONDS)


def test_draining_service_is_not_ready_answers_and_closes_connections(orders: Orders) -> None:
    with orders.connection() as old, orders.connection() as new:
        assert ask(old, "POST", "/orders", ORDER) == (201, None)

        orders.process.send_signal(signal.SIGTERM)

        until(lambda: orders.readiness() == (503, "close"))
        assert ask(old, "POST", "/orders", ORDER) == (201, "close")
        assert ask(new, "POST", "/orders", ORDER) == (201, "close")
    assert orders.process.poll() is None


def test_draining_service_ends_its_streams(orders: Orders) -> None:
    with orders.connection() as client:
        client.request("GET", "/orders/stream")
        stream = client.getresponse()
        assert stream.status == 200

        orders.process.send_signal(signal.SIGTERM)

        assert stream.read().startswith(b"retry:")
    assert orders.process.poll() is None


def test_request_that_waits_for_a_locked_database_is_answered_when_the_service_ends(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    orders = Orders(tmp_path, *free_ports(1), "--shutdown-grace-seconds=4", drain=0)
    until(lambda: orders.readiness()[0] == 200)
    with contextlib.closing(sqlite3.connect(tmp_path / "orders.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with orders.connection() as waiting:
            waiting.request(
                "POST", "/orders", json.dumps(ORDER), {"Content-Type": "application/json"}
            )
            until(lambda: orders.readiness()[0] != 200)  # The writer has tried it.
            orders.process.terminate()
            response = waiting.getresponse()
            answer = json.load(response)
    assert (response.status, answer["type"]) == (503, "/problems/outcome-unknown")
    assert "may or may not have been executed" in answer["detail"]
    assert orders.process.wait(BOUND_SECONDS) == 0

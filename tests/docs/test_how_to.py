"""The how-to guides work: each is applied to a copy of the source, which is started here."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from broker_access import connect_as_operator
from docs.extending import EXAMPLES, changed_files, extended_source
from end_to_end.running import BOUND_SECONDS, PORT_COUNT, Up, up
from todoku.cli.exit_codes import ExitCode
from todoku.system import system

FreePorts = Callable[[int], list[int]]
LOOK_AGAIN_SECONDS = 0.05
STEP_FILES_MAX = 6
AT_ONCE = ("--carrier-delay-seconds", "0")


def ask(url: str, body: Any = None) -> Any:
    """Return a service's response as JSON, None for 404."""
    request = urllib.request.Request(
        url,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=BOUND_SECONDS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 404:
                return None
            raise


def until(url: str, good: Callable[[Any], object]) -> Any:
    """Return the first response of this service that is good."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not (good(answer := ask(url))):
        assert time.monotonic() < deadline, answer
        time.sleep(LOOK_AGAIN_SECONDS)
    return answer


def place_order(running: Up, product: str, quantity: int, price: int) -> str:
    """Place an order; return its id."""
    item = {"productId": product, "quantity": quantity, "price": price}
    order = ask(f"{running.url('orders')}/orders", {"userId": "user123", "items": [item]})
    return str(order["id"])


def until_ended(running: Up, order_id: str, status: str) -> Any:
    """Return the order, once it has ended with this status."""
    address = f"{running.url('orders')}/orders/{order_id}"
    awaited = ("PENDING", "AWAITING_SHIPMENT")
    order = until(address, lambda answer: answer["status"] not in awaited)
    assert order["status"] == status
    return order


@contextmanager
def extended(
    monkeypatch: pytest.MonkeyPatch, folder: Path, source: Path, ports: list[int], *flags: str
) -> Iterator[Up]:
    """Run `todoku up` from this source; stop it with Ctrl-C."""
    monkeypatch.setenv("PYTHONPATH", str(source))
    with up(folder, ports, *AT_ONCE, *flags) as running:
        running.output.until("todoku is ready in ")
        yield running
        assert running.interrupt() == ExitCode.OK


def run_python(code: str, *arguments: str) -> str:
    """Return what a Python program prints."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    ).stdout


SCHEMA_DIFFERENCES = """
import sys, importlib
from todoku.database import Database, schema_differences
for path, store in zip(sys.argv[1::2], sys.argv[2::2]):
    with Database.open(path) as database:
        print(*schema_differences(database, importlib.import_module(store).metadata), sep="\\n")
"""


def test_listener_receives_how_orders_end_and_leaves_nothing_pending(
    tmp_path: Path, free_ports: FreePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = extended_source("add-a-listener.md", "listener", tmp_path)
    *ports, port = free_ports(PORT_COUNT + 1)
    with extended(
        monkeypatch,
        tmp_path,
        source,
        ports,
        *("--notifications-port", str(port), "--carrier-success-rate", "1"),
    ) as running:
        completed = place_order(running, "prod001", 2, 5000)
        cancelled = place_order(running, "prod001", 20, 5000)
        notification = f"http://127.0.0.1:{port}/notifications/"
        assert "On its way: SIM-" in until(notification + completed, bool)["text"]
        assert until(notification + cancelled, bool)["text"] == "Sold out: prod001."
        until_ended(running, completed, "COMPLETED")

        report = verified(tmp_path / "data")

    assert report["clean"]
    assert report["settled"]
    database = tmp_path / "data" / "notifications.db"
    assert not run_python(SCHEMA_DIFFERENCES, str(database), "todoku.notifications.store").strip()


def verified(data: Path) -> Any:
    """Return the report of `todoku verify`, once the system is quiescent."""
    deadline = time.monotonic() + BOUND_SECONDS
    while True:
        command = [sys.executable, "-m", "todoku", "verify", "--json", "--data-dir", str(data)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        report = json.loads(printed)
        if report["settled"] or time.monotonic() > deadline:
            return report


def test_step_decides_before_the_next_one_and_is_compensated(
    tmp_path: Path, free_ports: FreePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The databases are of the version before: a migration adds the new status to their tables."""
    *ports, port = free_ports(PORT_COUNT + 1)
    migrate = [sys.executable, "-P", "-m", "todoku", "migrate"]
    subprocess.run([*migrate, "--data-dir", str(tmp_path / "data")], check=True)
    source = extended_source("add-a-step.md", "step", tmp_path)

    with extended(
        monkeypatch,
        tmp_path,
        source,
        ports,
        *("--payments-port", str(port), "--carrier-success-rate", "1"),
    ) as running:
        payment = f"http://127.0.0.1:{port}/payments/"
        affordable = place_order(running, "prod003", 2, 40000)
        until_ended(running, affordable, "COMPLETED")
        until(payment + affordable, lambda it: it["status"] == "CAPTURED")

        dear = place_order(running, "prod003", 3, 40000)
        declined = until_ended(running, dear, "PAYMENT_DECLINED")
        assert declined["reason"] == "120000 JPY is above the limit of 100000"
        assert ask(payment + dear)["status"] == "DECLINED"

        sold_out = place_order(running, "prod003", 2, 40000)
        until_ended(running, sold_out, "CANCELLED_NO_STOCK")
        until(payment + sold_out, lambda it: it["status"] == "RELEASED")

        report = verified(tmp_path / "data")

        commands = {name: str(number) for name, number in zip(system.names, ports, strict=False)}
        todoku = Command(tmp_path, {**commands, "payments": str(port)})
        assert "COMPLETED" in todoku("order", "watch", affordable)
        watched = todoku("order", "watch", dear, code=ExitCode.ENDED_OTHERWISE)
        assert "above the limit of 100000" in watched
        made = json.loads(todoku("backup", str(tmp_path / "backups"), "--json"))
        assert "payments" in made["manifest"]["databases"]
        asyncio.run(publish(ports[-1], tmp_path / "data", "orders.created", b"no event"))
        listing = ("dead", "list", "--service", "payments", "--json")
        letter = json.loads(until_printed(lambda: todoku(*listing)))
        parked = verified(tmp_path / "data")["dead_letters"]
        assert "payments" in [each["service"] for each in parked]
        todoku("dead", "discard", letter["id"], "--service", "payments", "--reason", "from a test")
        assert "clean: no invariant was broken" in todoku("simulate", "--seeds", "20")

    assert report["clean"]
    data = tmp_path / "data"
    stores = {"payments": "todoku.payments.store", "orders": "todoku.orders.store"}
    pairs = [word for name, store in stores.items() for word in (str(data / f"{name}.db"), store)]
    assert not run_python(SCHEMA_DIFFERENCES, *pairs).strip()


def test_step_added_under_load_applies_to_orders_that_begin_after_it(
    tmp_path: Path, free_ports: FreePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders accepted before the step finish without it, finished or not; later ones take it; none
    twice, none stuck."""
    *ports, port = free_ports(PORT_COUNT + 1)
    slowly = ("--carrier-success-rate", "1", "--carrier-delay-seconds", "0..4")
    with up(tmp_path, ports, *slowly) as before:
        before.output.until("todoku is ready in ")
        ask(f"{before.url('inventory')}/products/prod001/restock", {"quantity": 100_000})
        finished = place_order(before, "prod001", 1, 5000)
        until_ended(before, finished, "COMPLETED")
        with Load(before) as load:
            load.wait_for(30)
        assert before.interrupt() == ExitCode.OK
    old = [finished, *load.placed]

    source = extended_source("add-a-step.md", "step", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(source))
    with up(tmp_path, ports, *slowly, "--payments-port", str(port)) as running:
        running.output.until("todoku is ready in ")
        with Load(running) as load:
            load.wait_for(30)
        payment = f"http://127.0.0.1:{port}/payments/"
        for order_id in load.placed:
            until_ended(running, order_id, "COMPLETED")
            until(payment + order_id, lambda it: it and it["status"] == "CAPTURED")
        for order_id in old:
            until_ended(running, order_id, "COMPLETED")
            assert ask(payment + order_id) is None
        report = verified(tmp_path / "data")
        assert running.interrupt() == ExitCode.OK

    assert report["settled"]
    assert report["clean"], report
    assert report["dead_letters"] == []
    reserved = run_python(RESERVATIONS, str(tmp_path / "data" / "inventory.db")).split()
    assert sorted(reserved) == sorted([*old, *load.placed])


RESERVATIONS = """
import sqlite3, sys
for row in sqlite3.connect(sys.argv[1]).execute("SELECT order_id FROM reservations"):
    print(*row)
"""


class Load:
    """Place orders one after the other in a thread, as long as the context lasts."""

    def __init__(self, running: Up) -> None:
        self.placed: list[str] = []
        self._running = running
        self._grown = threading.Condition()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._place)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Wait until so many orders are placed."""
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.placed) >= count, BOUND_SECONDS)

    def _place(self) -> None:
        while not self._ended.is_set():
            order_id = place_order(self._running, "prod001", 1, 5000)
            with self._grown:
                self.placed.append(order_id)
                self._grown.notify_all()


def test_step_changes_at_most_six_files_of_adjacent_services() -> None:
    touched = changed_files("add-a-step.md")
    neighbours = ("src/todoku/orders/", "src/todoku/inventory/", "src/todoku/system.py")
    assert len(touched) <= STEP_FILES_MAX
    assert all(file.startswith(neighbours) for file in touched), touched


def test_the_simulator_finds_a_bug_planted_into_the_step(tmp_path: Path) -> None:
    source = extended_source("add-a-step.md", "step", tmp_path)
    domain = source / "todoku" / "payments" / "domain.py"
    released = "Release the payment: nothing will be shipped."
    right, wrong = "return _ended(payment, event, now), []", "return payment, []"
    before, found, after = domain.read_text().partition(released)
    assert found
    domain.write_text(before + found + after.replace(right, wrong, 1))

    ended = subprocess.run(
        [sys.executable, "-P", "-m", "todoku", "simulate", "--seeds", "4", "--shrink-seconds", "0"],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == ExitCode.FAILED
    assert "but money is still held for it" in ended.stdout


def test_listener_changes_only_the_list_of_services() -> None:
    assert changed_files("add-a-listener.md") == {"src/todoku/system.py"}


class Command(msgspec.Struct, frozen=True):
    """Run commands of the source on PYTHONPATH, against services on these ports."""

    folder: Path
    ports: Mapping[str, str]

    def __call__(self, *words: str, code: int = ExitCode.OK) -> str:
        """Return what a command prints."""
        ports = {f"TODOKU_{name.upper()}_PORT": port for name, port in self.ports.items()}
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "todoku", *words],
            env={**os.environ, **ports, "TODOKU_DATA_DIR": str(self.folder / "data")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == code, ended
        return ended.stdout


def until_printed(run: Callable[[], str]) -> str:
    """Return the first output that is not empty."""
    deadline = time.monotonic() + BOUND_SECONDS
    while not (printed := run()):
        assert time.monotonic() < deadline
        time.sleep(LOOK_AGAIN_SECONDS)
    return printed


async def publish(port: int, data_dir: Path, subject: str, body: bytes) -> None:
    """Publish a message as the broker's operator may."""
    connection = await connect_as_operator(port, data_dir)
    await connection.jetstream().publish(subject, body)
    await connection.close()


class CarrierWithLostAnswer(BaseHTTPRequestHandler):
    """Accept a parcel at the first call, but close the connection instead of answering."""

    protocol_version = "HTTP/1.1"
    calls: ClassVar[list[str]]
    booked: ClassVar[dict[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        self.calls.append(key)
        if key not in self.booked:
            self.booked[key] = body
            self.close_connection = True
            return
        answer = json.dumps({"trackingNumber": f"P-{len(self.booked)}"}).encode()
        self.send_response(201)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def test_carrier_call_without_answer_is_repeated_with_the_same_key(
    tmp_path: Path, free_ports: FreePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Carrier(CarrierWithLostAnswer):
        calls: ClassVar[list[str]] = []
        booked: ClassVar[dict[str, Any]] = {}

    with ThreadingHTTPServer(("127.0.0.1", 0), Carrier) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PARCEL_CARRIER_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PARCEL_CARRIER_TOKEN", "secret")
        with extended(
            monkeypatch,
            tmp_path,
            EXAMPLES / "carrier",
            free_ports(PORT_COUNT),
            *("--carrier", "parcel_carrier:carrier"),
        ) as running:
            order_id = place_order(running, "prod002", 1, 3000)
            order = until_ended(running, order_id, "COMPLETED")
        server.shutdown()

    assert order["trackingNumber"] == "P-1"
    assert Carrier.calls == [order["shipmentId"]] * 2
    assert Carrier.booked == {order["shipmentId"]: {"reference": order_id, "to": "", "pieces": 1}}


def test_missing_carrier_keeps_the_system_from_starting(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(PORT_COUNT), "--carrier", "nowhere:carrier") as running:
        running.output.until("shipping ended with exit code 2, and would again")
        assert running.process.wait(BOUND_SECONDS) == ExitCode.USAGE
    assert "which cannot be imported" in (tmp_path / "up.stderr").read_text()

"""What is lost behind the program's back is found by `todoku verify` and repaired by its `--repair`."""

import json
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from running import BOUND_SECONDS, Up, up

from todoku.cli.exit_codes import ExitCode
from todoku.settings import SERVICES, ServiceName

FreePorts = Callable[[int], list[int]]
QUICKLY: Final = ("--grace-seconds", "0", "--overdue-seconds", "0")


class Folder:
    """The data of a Todoku and its ports, whether it runs or not."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder
        self.ports = ports
        self.data = folder / "data"

    def verify(self, *flags: str) -> "subprocess.CompletedProcess[str]":
        places = [f"--{name}-port={port}" for name, port in zip(SERVICES, self.ports, strict=False)]
        command = [sys.executable, "-m", "todoku", "verify", "--data-dir", str(self.data)]
        return subprocess.run(
            [*command, *places, *flags],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def report(self, *flags: str) -> Any:
        return json.loads(self.verify("--json", *flags).stdout)

    def settled(self, *flags: str) -> Any:
        """The report once nothing waits and every order has ended."""
        ends = time.monotonic() + BOUND_SECONDS
        while not (report := self.report(*QUICKLY, *flags))["settled"]:
            assert time.monotonic() < ends, report
        return report

    def damage(self, service: ServiceName, *statements: str) -> None:
        """Change a database of a stopped Todoku behind its back."""
        with sqlite3.connect(self.data / f"{service}.db") as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def lose_stream(self) -> None:
        shutil.rmtree(self.data / "broker")


def post(running: Up, service: ServiceName, path: str, body: object) -> Any:
    request = urllib.request.Request(
        running.url(service) + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=BOUND_SECONDS) as answer:
        return json.load(answer)


def place(running: Up) -> str:
    """Order two pieces of a product of the demo catalogue."""
    line = {"productId": "prod001", "quantity": 2, "price": 1}
    order = {"userId": "user", "items": [line], "shippingAddress": "1-1 Chiyoda"}
    order_id: str = post(running, "orders", "/orders", order)["id"]
    return order_id


@pytest.fixture
def folder(tmp_path: Path, free_ports: FreePorts) -> Folder:
    return Folder(tmp_path, free_ports(4))


def test_orders_whose_events_and_rows_were_deleted_are_found_and_repaired(folder: Folder) -> None:
    """Of three orders, one was heard by nobody, of one shipping has lost the shipment, and of one
    orders and inventory have lost how it ended. The stream holds nothing of it any more."""
    flags = ("--carrier-delay-seconds", "0", "--carrier-success-rate", "1")
    with up(folder.folder, folder.ports, *flags) as running:
        running.heard.until("todoku is ready in ")
        unheard, unshipped, unended = (place(running) for _ in range(3))
        folder.settled()
        assert running.interrupt() == ExitCode.OK
    folder.lose_stream()
    folder.damage(
        "orders",
        f"""UPDATE orders SET status = 'PENDING', tracking_number = NULL, shipment_id = NULL
            WHERE id = '{unheard}'""",
        f"""UPDATE orders SET status = 'AWAITING_SHIPMENT', tracking_number = NULL
            WHERE id IN ('{unshipped}', '{unended}')""",
        f"DELETE FROM order_events WHERE order_id = '{unheard}' AND sequence > 1",
        "DELETE FROM inbox",
    )
    folder.damage(
        "inventory",
        f"DELETE FROM reservations WHERE order_id = '{unheard}'",
        f"DELETE FROM stock_ledger WHERE order_id IN ('{unheard}', '{unshipped}', '{unended}')",
        f"UPDATE reservations SET state = 'RESERVED' WHERE order_id IN ('{unshipped}', '{unended}')",
        """UPDATE products SET stock_quantity = stock_quantity + 6,
            reserved_quantity = reserved_quantity + 4 WHERE id = 'prod001'""",
        "DELETE FROM inbox",
    )
    folder.damage(
        "shipping",
        f"""DELETE FROM shipment_items WHERE shipment_id IN
            (SELECT id FROM shipments WHERE order_id IN ('{unheard}', '{unshipped}'))""",
        f"DELETE FROM shipments WHERE order_id IN ('{unheard}', '{unshipped}')",
        "DELETE FROM inbox",
    )

    found = {
        finding["subject"]: (finding["invariant"], finding["asks"])
        for finding in folder.report(*QUICKLY)["findings"]
    }
    assert found == {
        unheard: ("I3", "orders"),
        unshipped: ("I3", "inventory"),
        unended: ("I3", "shipping"),
    }
    said = folder.verify(*QUICKLY, "--repair")
    assert said.returncode == ExitCode.UNREACHABLE
    assert "they must run: start `todoku up`" in said.stderr

    with up(folder.folder, folder.ports, *flags) as running:
        running.heard.until("todoku is ready in ")
        said = folder.verify("--repair", "--overdue-seconds", "0", "--grace-seconds", "3")
        assert said.returncode == ExitCode.OK, said
        assert "clean: nothing is broken" in said.stdout
        for service, event in (
            ("orders", "OrderCreatedEvent"),
            ("inventory", "StockReservedEvent"),
            ("shipping", "ShipmentCompletedEvent"),
        ):
            assert f"{service} says again about 1 of the orders: {event} ×1" in said.stderr
        report = folder.settled()
        assert report["clean"]
        assert report["orders"] == {"COMPLETED": 3}
        assert report["dead_letters"] == []
        assert "nothing to repair" in folder.verify(*QUICKLY, "--repair").stderr


def test_what_is_owed_to_a_service_that_has_not_answered_for_long_is_sent_again(
    folder: Folder,
) -> None:
    """Here the rows that wait are about orders that nobody knows, which is why they wait for ever."""
    with up(folder.folder, folder.ports) as running:
        running.heard.until("todoku is ready in ")
        assert running.interrupt() == ExitCode.OK
    folder.damage(
        "orders",
        """INSERT INTO outbox (event_id, reader, owner, position, subject, body, said_at)
            VALUES ('event', 'nobody', 'gone', 1, 'orders.nothing', x'00', 0)""",
    )
    with up(folder.folder, folder.ports) as running:
        running.heard.until("todoku is ready in ")
        said = folder.verify(*QUICKLY, "--repair")
        assert said.returncode == ExitCode.OK, said
        assert "orders sends again all that it owes: receipts awaited: 1" in said.stderr
        assert "receipts of nobody awaited by orders" in said.stdout

"""`todoku verify` finds lost events and rows, and `--repair` restores them."""

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

from end_to_end.running import PORT_COUNT
from todoku.cli.exit_codes import ExitCode
from todoku.system import system

FreePorts = Callable[[int], list[int]]
QUICKLY: Final = ("--grace-seconds", "0", "--overdue-seconds", "0")


class Folder:
    """The data folder and the ports of a system, running or not."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder
        self.ports = ports
        self.data = folder / "data"

    def verify(self, *flags: str) -> "subprocess.CompletedProcess[str]":
        places = [
            f"--{name}-port={port}" for name, port in zip(system.names, self.ports, strict=False)
        ]
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
        """Return the report once no delivery is pending and every order has ended."""
        ends = time.monotonic() + BOUND_SECONDS
        while not (report := self.report(*QUICKLY, *flags))["settled"]:
            assert time.monotonic() < ends, report
        return report

    def damage(self, service: str, *statements: str) -> None:
        """Change a database of a stopped system directly."""
        with sqlite3.connect(self.data / f"{service}.db") as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    def lose_stream(self) -> None:
        shutil.rmtree(self.data / "broker")


def post(running: Up, service: str, path: str, body: object) -> Any:
    request = urllib.request.Request(
        running.url(service) + path,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=BOUND_SECONDS) as answer:
        return json.load(answer)


def place(running: Up) -> str:
    """Order two units of a product of the demo catalogue."""
    line = {"productId": "prod001", "quantity": 2}
    order = {"userId": "user", "items": [line], "shippingAddress": "1-1 Chiyoda"}
    order_id: str = post(running, "orders", "/orders", order)["id"]
    return order_id


@pytest.fixture
def folder(tmp_path: Path, free_ports: FreePorts) -> Folder:
    return Folder(tmp_path, free_ports(PORT_COUNT))


def test_deleted_events_and_rows_are_found_and_repaired(folder: Folder) -> None:
    """Of three orders, one is unknown to the other services, one has lost its shipment, and one its
    final event at orders and inventory. The stream is empty."""
    flags = ("--carrier-delay-seconds", "0", "--carrier-success-rate", "1")
    with up(folder.folder, folder.ports, *flags) as running:
        running.output.until("todoku is ready in ")
        unreserved, unshipped, unended = (place(running) for _ in range(3))
        folder.settled()
        assert running.interrupt() == ExitCode.OK
    folder.lose_stream()
    folder.damage(
        "orders",
        f"""UPDATE orders SET status = 'PENDING', tracking_number = NULL, shipment_id = NULL
            WHERE id = '{unreserved}'""",
        f"""UPDATE orders SET status = 'AWAITING_SHIPMENT', tracking_number = NULL
            WHERE id IN ('{unshipped}', '{unended}')""",
        f"DELETE FROM order_events WHERE order_id = '{unreserved}' AND sequence > 1",
        "DELETE FROM inbox",
    )
    folder.damage(
        "inventory",
        f"DELETE FROM reservations WHERE order_id = '{unreserved}'",
        f"DELETE FROM stock_ledger WHERE order_id IN ('{unreserved}', '{unshipped}', '{unended}')",
        f"UPDATE reservations SET state = 'RESERVED' WHERE order_id IN ('{unshipped}', '{unended}')",
        """UPDATE products SET stock_quantity = stock_quantity + 6,
            reserved_quantity = reserved_quantity + 4 WHERE id = 'prod001'""",
        "DELETE FROM inbox",
    )
    folder.damage(
        "shipping",
        f"""DELETE FROM shipment_items WHERE shipment_id IN
            (SELECT id FROM shipments WHERE order_id IN ('{unreserved}', '{unshipped}'))""",
        f"DELETE FROM shipments WHERE order_id IN ('{unreserved}', '{unshipped}')",
        "DELETE FROM inbox",
    )

    found = {
        finding["subject"]: (finding["invariant"], finding["asks"])
        for finding in folder.report(*QUICKLY)["findings"]
    }
    assert found == {
        unreserved: ("I3", "orders"),
        unshipped: ("I3", "inventory"),
        unended: ("I3", "shipping"),
    }
    result = folder.verify(*QUICKLY, "--repair")
    assert result.returncode == ExitCode.UNREACHABLE
    assert "--repair needs running services: start `todoku up`" in result.stderr

    with up(folder.folder, folder.ports, *flags) as running:
        running.output.until("todoku is ready in ")
        result = folder.verify("--repair", "--overdue-seconds", "0", "--grace-seconds", "3")
        assert result.returncode == ExitCode.OK, result
        assert "clean: no broken invariants" in result.stdout
        for service, event in (
            ("orders", "OrderCreatedEvent"),
            ("inventory", "StockReservedEvent"),
            ("shipping", "ShipmentCompletedEvent"),
        ):
            assert f"{service} republishes for 1 order: {event} ×1" in result.stderr
        report = folder.settled()
        assert report["clean"]
        assert report["orders"] == {"COMPLETED": 3}
        assert report["dead_letters"] == []
        assert "nothing to repair" in folder.verify(*QUICKLY, "--repair").stderr


def test_pending_deliveries_to_unresponsive_service_are_resent(
    folder: Folder,
) -> None:
    """The pending rows belong to an unknown order, so they are never acknowledged."""
    with up(folder.folder, folder.ports) as running:
        running.output.until("todoku is ready in ")
        assert running.interrupt() == ExitCode.OK
    folder.damage(
        "orders",
        """INSERT INTO outbox (event_id, reader, owner, position, subject, body, said_at)
            VALUES ('event', 'nobody', 'gone', 1, 'orders.nothing', x'00', 0)""",
    )
    with up(folder.folder, folder.ports) as running:
        running.output.until("todoku is ready in ")
        result = folder.verify(*QUICKLY, "--repair")
        assert result.returncode == ExitCode.OK, result
        assert "orders resends 1 pending delivery" in result.stderr
        assert "from nobody (oldest: " in result.stdout

"""`todoku verify`: what it prints, what it refuses, and whom `--repair` asks for what."""

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from calling import Caller
from scripted import Scripted, answering, problem

from todoku.audit import Awaited, Finding, Report
from todoku.cli import verify
from todoku.cli.exit_codes import ExitCode
from todoku.settings import Settings

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
AT_ONCE: Final = ("--data-dir", ".", "--grace-seconds", "0")
PENDING: Final = "0198c2f0-7b1a-7c3e-9d55-000000000001"
GHOST: Final = "0198c2f0-7b1a-7c3e-9d55-000000000002"
SAID: Final = {"orderId": PENDING, "eventTypes": ["OrderCreatedEvent"]}


@pytest.fixture
def folder(todoku_alone: Caller) -> Path:
    """A folder with empty databases."""
    todoku_alone.ok("migrate", "--data-dir", ".")
    return todoku_alone.folder


def execute(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


def place(folder: Path) -> None:
    """An order of long ago, of which nobody else has heard."""
    execute(
        folder / "orders.db",
        f"""INSERT INTO orders (id, user_id, total_amount, currency, shipping_address, status,
            event_count, created_at, updated_at)
            VALUES ('{PENDING}', 'user', 1, 'JPY', '', 'PENDING', 1, 0, 0)""",
    )
    execute(
        folder / "orders.db",
        f"""INSERT INTO order_events (order_id, event_id, sequence, type, source, said_at,
            recorded_at, status, data) VALUES
            ('{PENDING}', 'e', 1, 'OrderCreatedEvent', 'orders', 0, 0, 'PENDING', '{{}}')""",
    )


def owe(folder: Path, said_at: int = 0) -> None:
    """An event of orders that waits for two receipts, since an instant in microseconds."""
    for reader in ("inventory", "shipping"):
        execute(
            folder / "orders.db",
            f"""INSERT INTO outbox (event_id, reader, owner, position, subject, body, said_at)
                VALUES ('e', '{reader}', 'gone', 1, 's', x'00', {said_at})""",
        )


def park(folder: Path, order_id: str) -> None:
    execute(
        folder / "inventory.db",
        f"""INSERT INTO dead_letters (id, subject, body, order_id, parked_at, attempts, error, state)
            VALUES ('l', 's', x'00', '{order_id}', 0, 5, 'Error', 'PARKED')""",
    )


@pytest.mark.parametrize("flag", ["--grace-seconds", "--overdue-seconds"])
@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300", "soon"])
def test_what_is_no_time_is_refused(todoku_alone: Caller, flag: str, seconds: str) -> None:
    said = todoku_alone("verify", flag, seconds)
    assert said.code == ExitCode.USAGE
    assert flag in said.err


def test_what_waits_for_receipts_or_for_a_person_is_named_with_what_to_do(
    todoku_alone: Caller, folder: Path
) -> None:
    owe(folder)
    park(folder, GHOST)
    said = todoku_alone.ok("verify", *AT_ONCE).out
    assert "1 receipts of inventory awaited by orders, the longest for " in said
    assert "1 receipts of shipping awaited by orders, the longest for " in said
    assert f"1 dead letters at inventory, about {GHOST}" in said
    assert "`todoku dead list --service inventory`" in said
    report = todoku_alone.ok("verify", *AT_ONCE, "--json").object
    assert report["dead_letters"] == [{"service": "inventory", "letters": 1, "orders": [GHOST]}]
    assert report["awaited"][0] == {
        "service": "orders",
        "reader": "inventory",
        "events": 1,
        "since": "1970-01-01T00:00:00Z",
    }
    assert (report["clean"], report["settled"]) == (True, False)


def test_an_overdue_order_is_named_with_what_to_do(todoku_alone: Caller, folder: Path) -> None:
    place(folder)
    said = todoku_alone("verify", *AT_ONCE)
    assert said.code == ExitCode.FAILED
    assert f"I3  {PENDING}: still PENDING after its time\n    The inventory" in said.out
    assert "`todoku verify --repair`" in said.out


def test_a_repair_asks_about_the_orders_concerned_and_for_what_is_owed_and_says_so(
    todoku_alone: Caller, folder: Path
) -> None:
    place(folder)
    owe(folder)
    answers = [
        Scripted(msgspec.json.encode({"owed": 0, "orders": [SAID]}), status=202),
        Scripted(msgspec.json.encode({"owed": 2, "orders": []}), status=202),
    ]
    with answering(*answers) as orders:
        said = todoku_alone("verify", *AT_ONCE, "--repair", "--orders-port", port(orders.url))
    assert said.code == ExitCode.FAILED  # nobody there to hear it
    assert [(what, msgspec.json.decode(body)) for what, body in orders.asked] == [
        ("POST /events/send-again", {"orderIds": [PENDING]}),
        ("POST /events/send-again", {}),
    ]
    assert "orders says again about 1 of the orders: OrderCreatedEvent ×1" in said.err
    assert "orders sends again all that it owes: receipts awaited: 2" in said.err


def test_what_was_said_within_the_grace_period_is_not_asked_for(
    todoku_alone: Caller, folder: Path
) -> None:
    owe(folder, said_at=int(datetime.now(UTC).timestamp() * 1_000_000))
    said = todoku_alone.ok("verify", "--data-dir", ".", "--repair")
    assert "nothing to repair by sending it again" in said.err


def test_a_repair_needs_running_services(
    todoku_alone: Caller, folder: Path, free_ports: Any
) -> None:
    place(folder)
    said = todoku_alone("verify", *AT_ONCE, "--repair", f"--orders-port={free_ports(1)[0]}")
    assert said.code == ExitCode.UNREACHABLE
    assert "they must run: start `todoku up`" in said.err


def test_a_service_that_cannot_say_it_again_just_now_is_named_with_its_reason(
    todoku_alone: Caller, folder: Path
) -> None:
    place(folder)
    busy = problem(503, "overloaded", "Too much at once", "Try again later.")
    with answering(busy) as orders:
        said = todoku_alone("verify", *AT_ONCE, "--repair", "--orders-port", port(orders.url))
    assert said.code == ExitCode.BUSY
    assert "Too much at once" in said.err


def port(url: str) -> str:
    return url.rpartition(":")[2]


def test_a_finding_counts_if_its_like_was_there_all_the_time_whatever_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "LOOK_AGAIN_SECONDS", 0.0)
    reports = iter(a_report(n, passing=n == 0) for n in range(1_000_000))
    monkeypatch.setattr(verify, "_audit", lambda *_: next(reports))
    lasting = verify._lasting(Settings(), 0.01, timedelta(0))
    assert [finding.subject for finding in lasting.findings] == ["lasts"]
    assert lasting.findings[0].problem != "0"


def a_report(n: int, *, passing: bool) -> Report:
    def findings() -> Iterator[Finding]:
        yield Finding("I2", "lasts", str(n), "")
        if passing:
            yield Finding("I2", "passes", str(n), "")

    return Report(tuple(findings()), {}, (Awaited("orders", "inventory", 1, NOW),), ())

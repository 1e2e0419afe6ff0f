"""`todoku verify`: its output, invalid flags, and the requests of `--repair`."""

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
from todoku.audit.report import AuditLogState
from todoku.cli import verify
from todoku.cli.exit_codes import ExitCode
from todoku.database.lock import FileLock
from todoku.local import running
from todoku.local.running import RunningUp
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


def test_settings_of_the_running_system_are_used(folder: Path, todoku_alone: Caller) -> None:
    """Given to `up` in another shell: without them, another database would be found in order."""
    (folder / "orders.db").rename(folder / "moved.db")
    url = f"sqlite:///{folder / 'moved.db'}"
    lock = FileLock(folder / "up.lock")
    try:
        running.publish(folder, RunningUp(1, "0.2.0", {"orders_database_url": url}, {}))
        while_running = todoku_alone("verify", *AT_ONCE)
    finally:
        lock.release()

    assert while_running.code == ExitCode.OK, while_running
    assert todoku_alone("verify", *AT_ONCE).code == ExitCode.CANNOT_START


def execute(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


def insert_order(folder: Path) -> None:
    """Insert an old order that no other service knows."""
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


def insert_outbox_rows(folder: Path, said_at: int = 0) -> None:
    """Insert an outbox row of orders for each reader; `said_at` is in microseconds."""
    for reader in ("inventory", "shipping"):
        execute(
            folder / "orders.db",
            f"""INSERT INTO outbox (event_id, reader, owner, position, subject, body, said_at)
                VALUES ('e', '{reader}', 'gone', 1, 's', x'00', {said_at})""",
        )


def insert_dead_letter(folder: Path, order_id: str) -> None:
    execute(
        folder / "inventory.db",
        f"""INSERT INTO dead_letters (id, subject, body, order_id, parked_at, attempts, error, state)
            VALUES ('l', 's', x'00', '{order_id}', 0, 5, 'Error', 'PARKED')""",
    )


@pytest.mark.parametrize("flag", ["--grace-seconds", "--overdue-seconds"])
@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "1e300", "soon"])
def test_invalid_duration_is_rejected(todoku_alone: Caller, flag: str, seconds: str) -> None:
    result = todoku_alone("verify", flag, seconds)
    assert result.code == ExitCode.USAGE
    assert flag in result.err


def test_strict_fails_on_dead_letters(todoku_alone: Caller, folder: Path) -> None:
    assert todoku_alone("verify", "--strict", *AT_ONCE).code == ExitCode.OK
    insert_dead_letter(folder, GHOST)
    assert todoku_alone("verify", *AT_ONCE).code == ExitCode.OK
    assert todoku_alone("verify", "--strict", *AT_ONCE).code == ExitCode.FAILED


@pytest.mark.parametrize("strict", [False, True])
def test_restore_is_wrong_only_where_nobody_has_restored_a_database(strict: bool) -> None:
    restored = AuditLogState("orders", 7, 2, 0, None, (NOW,))
    report = Report((), {}, (), (), audit_logs=(restored,))
    assert not verify._fails(report, strict=strict, never_restored=False)
    assert verify._fails(report, strict=strict, never_restored=True)
    untouched = msgspec.structs.replace(report, audit_logs=())
    assert not verify._fails(untouched, strict=strict, never_restored=True)


def test_database_that_was_never_restored_passes(todoku_alone: Caller, folder: Path) -> None:
    todoku_alone.ok("verify", "--strict", "--never-restored", *AT_ONCE)


def test_pending_receipts_and_dead_letters_are_listed_with_advice(
    todoku_alone: Caller, folder: Path
) -> None:
    insert_outbox_rows(folder)
    insert_dead_letter(folder, GHOST)
    result = todoku_alone.ok("verify", *AT_ONCE).out
    assert "orders waits for 1 receipt from inventory (oldest: " in result
    assert "orders waits for 1 receipt from shipping (oldest: " in result
    assert f"1 dead letter at inventory, about {GHOST}" in result
    assert "`todoku dead list --service inventory`" in result
    answer = todoku_alone.ok("verify", *AT_ONCE, "--json").object
    assert answer["dead_letters"] == [{"service": "inventory", "letters": 1, "orders": [GHOST]}]
    assert answer["awaited"][0] == {
        "service": "orders",
        "reader": "inventory",
        "events": 1,
        "since": "1970-01-01T00:00:00Z",
    }
    assert (answer["clean"], answer["settled"]) == (True, False)


def test_overdue_order_is_listed_with_advice(todoku_alone: Caller, folder: Path) -> None:
    insert_order(folder)
    result = todoku_alone("verify", *AT_ONCE)
    assert result.code == ExitCode.FAILED
    assert f"I3  {PENDING}: in PENDING for over 300 s\n    The inventory" in result.out
    assert "`todoku verify --repair`" in result.out


def test_repair_requests_affected_orders_and_pending_deliveries(
    todoku_alone: Caller, folder: Path
) -> None:
    insert_order(folder)
    insert_outbox_rows(folder)
    answers = [
        Scripted(msgspec.json.encode({"owed": 0, "orders": [SAID]}), status=202),
        Scripted(msgspec.json.encode({"owed": 2, "orders": []}), status=202),
    ]
    with answering(*answers) as orders:
        result = todoku_alone("verify", *AT_ONCE, "--repair", "--orders-port", port(orders.url))
    assert result.code == ExitCode.FAILED  # no service runs that could process them
    assert [(what, msgspec.json.decode(body)) for what, body in orders.asked] == [
        ("POST /events/send-again", {"orderIds": [PENDING]}),
        ("POST /events/send-again", {}),
    ]
    assert "orders republishes for 1 order: OrderCreatedEvent ×1" in result.err
    assert "orders resends 2 pending deliveries" in result.err


def test_repair_ignores_events_within_grace_period(todoku_alone: Caller, folder: Path) -> None:
    insert_outbox_rows(folder, said_at=int(datetime.now(UTC).timestamp() * 1_000_000))
    result = todoku_alone.ok("verify", "--data-dir", ".", "--repair")
    assert "nothing to repair by resending events" in result.err


def test_repair_needs_running_services(todoku_alone: Caller, folder: Path, free_ports: Any) -> None:
    insert_order(folder)
    result = todoku_alone("verify", *AT_ONCE, "--repair", f"--orders-port={free_ports(1)[0]}")
    assert result.code == ExitCode.UNREACHABLE
    assert "--repair needs running services: start `todoku up`" in result.err


def test_repair_reports_overloaded_service_with_reason(todoku_alone: Caller, folder: Path) -> None:
    insert_order(folder)
    busy = problem(503, "overloaded", "Too much at once", "Try again later.")
    with answering(busy) as orders:
        result = todoku_alone("verify", *AT_ONCE, "--repair", "--orders-port", port(orders.url))
    assert result.code == ExitCode.BUSY
    assert "Too much at once" in result.err


def port(url: str) -> str:
    return url.rpartition(":")[2]


def test_only_findings_that_last_count_whatever_their_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verify, "POLL_SECONDS", 0.0)
    reports = iter(report(n, passing=n == 0) for n in range(1_000_000))
    monkeypatch.setattr(verify, "_audit", lambda *_: next(reports))
    lasting = verify._lasting(Settings(), 0.01, timedelta(0))
    assert [finding.subject for finding in lasting.findings] == ["lasts"]
    assert lasting.findings[0].problem != "0"


def report(n: int, *, passing: bool) -> Report:
    def findings() -> Iterator[Finding]:
        yield Finding("I2", "lasts", str(n), "")
        if passing:
            yield Finding("I2", "passes", str(n), "")

    return Report(tuple(findings()), {}, (Awaited("orders", "inventory", 1, NOW),), ())

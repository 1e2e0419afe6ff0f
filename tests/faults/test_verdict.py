"""Tests that the verdict finds each kind of violation."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from todoku.database import Database, migrate
from todoku.lab.chaos import OrderLoad, Verdict, judge
from todoku.lab.stack import Stack, isolated_settings
from todoku.orders.store import orders
from todoku.system import system

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ORDER = "01a204ef-fdc4-7529-bc16-d80bc5d20fdb"


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A stack that is not running, with empty databases."""
    stack = Stack(isolated_settings(tmp_path), tmp_path / "log")
    for service in system.names:
        with Database.open(stack.settings.database(service)) as database:
            migrate(database, system[service].package)
    return stack


@pytest.fixture
def load(stack: Stack) -> OrderLoad:
    """A load that has not started."""
    return OrderLoad(stack)


def judged(stack: Stack, load: OrderLoad) -> Verdict:
    return judge(stack.settings, load, within_seconds=0)


def place(stack: Stack, status: str) -> None:
    with (
        Database.open(stack.settings.database("orders")) as database,
        database.transaction() as connection,
    ):
        connection.execute(
            insert(orders).values(
                id=ORDER,
                user_id="user123",
                currency="JPY",
                total_amount=100,
                shipping_address="",
                status=status,
                reason="sold out",
                event_count=0,
                created_at=NOW,
                updated_at=NOW,
            )
        )


def test_empty_system_breaks_nothing(stack: Stack, load: OrderLoad) -> None:
    assert judged(stack, load).kept


def test_missing_accepted_order_is_lost(stack: Stack, load: OrderLoad) -> None:
    load.accepted.add(ORDER)

    assert judged(stack, load).broken == [f"I1 order {ORDER} was accepted and is lost"]


def test_order_that_was_not_placed_is_a_phantom(stack: Stack, load: OrderLoad) -> None:
    place(stack, "CANCELLED_NO_STOCK")

    assert judged(stack, load).broken[0] == "I1 1 orders exist that were not placed"


def test_order_with_unknown_outcome_is_no_phantom(stack: Stack, load: OrderLoad) -> None:
    place(stack, "CANCELLED_NO_STOCK")
    load.unknown = 1

    assert judged(stack, load).phantoms == 0


def test_earlier_order_is_no_phantom(stack: Stack, load: OrderLoad) -> None:
    place(stack, "CANCELLED_NO_STOCK")

    assert judge(stack.settings, load, within_seconds=0, before={ORDER}).phantoms == 0


def test_open_order_is_not_quiescent(stack: Stack, load: OrderLoad) -> None:
    place(stack, "PENDING")
    load.accepted.add(ORDER)

    verdict = judged(stack, load)

    assert verdict.settled_seconds is None
    assert any(line.startswith("I3 not quiescent in time") for line in verdict.broken)


def test_audit_finding_is_a_violation(stack: Stack, load: OrderLoad) -> None:
    place(stack, "CANCELLED_NO_STOCK")
    load.accepted.add(ORDER)

    assert any(line.startswith(f"I4 {ORDER}") for line in judged(stack, load).broken)


def test_unexpected_response_is_a_violation(stack: Stack, load: OrderLoad) -> None:
    load.wrong.append("500 oh dear")

    assert judged(stack, load).broken == ["HTTP a request was answered with 500 oh dear"]

"""The verdict finds what it is there to find."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from todoku.database import Database, migrate
from todoku.lab.chaos import Load, Stack, Verdict, fresh_settings, judge
from todoku.local.supervisor import TETHER
from todoku.orders.store import orders
from todoku.system import system

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ORDER = "01a204ef-fdc4-7529-bc16-d80bc5d20fdb"


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    """A stack that does not run, with empty databases."""
    stack = Stack(fresh_settings(tmp_path), tmp_path / "log", tether=TETHER)
    for service in system.names:
        with Database.open(stack.settings.database(service)) as database:
            migrate(database, system[service].package)
    return stack


@pytest.fixture
def load(stack: Stack) -> Load:
    """Customers who have done nothing yet."""
    return Load(stack)


def judged(stack: Stack, load: Load) -> Verdict:
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


def test_where_nothing_happened_nothing_is_broken(stack: Stack, load: Load) -> None:
    assert judged(stack, load).kept


def test_an_order_that_was_accepted_and_is_not_there_is_lost(stack: Stack, load: Load) -> None:
    load.accepted.add(ORDER)

    assert judged(stack, load).broken == [f"I1 order {ORDER} was accepted and is lost"]


def test_an_order_that_nobody_placed_is_a_phantom(stack: Stack, load: Load) -> None:
    place(stack, "CANCELLED_NO_STOCK")

    assert judged(stack, load).broken[0] == "I1 1 orders that nobody placed"


def test_of_an_order_without_an_answer_nobody_knows(stack: Stack, load: Load) -> None:
    place(stack, "CANCELLED_NO_STOCK")
    load.unknown = 1

    assert judged(stack, load).phantoms == 0


def test_an_order_that_was_there_before_is_no_phantom(stack: Stack, load: Load) -> None:
    place(stack, "CANCELLED_NO_STOCK")

    assert judge(stack.settings, load, within_seconds=0, before={ORDER}).phantoms == 0


def test_an_order_that_does_not_end_is_not_settled(stack: Stack, load: Load) -> None:
    place(stack, "PENDING")
    load.accepted.add(ORDER)

    verdict = judged(stack, load)

    assert verdict.settled_seconds is None
    assert any(line.startswith("I3 not settled in time") for line in verdict.broken)


def test_what_the_audit_finds_breaks_the_promise(stack: Stack, load: Load) -> None:
    place(stack, "CANCELLED_NO_STOCK")
    load.accepted.add(ORDER)

    assert any(line.startswith(f"I4 {ORDER}") for line in judged(stack, load).broken)


def test_an_answer_that_is_neither_success_nor_503_is_wrong(stack: Stack, load: Load) -> None:
    load.wrong.append("500 oh dear")

    assert judged(stack, load).broken == ["HTTP a request was answered with 500 oh dear"]

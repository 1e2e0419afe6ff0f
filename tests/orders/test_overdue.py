"""An order is overdue in lists when it is in the audit: by one definition."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest

from todoku.contracts import OrderedItem
from todoku.database import Database, migrate
from todoku.engine import StateCache
from todoku.lifecycle import overdue_from
from todoku.orders.audit import known_orders
from todoku.orders.domain import ORDER, OrderStatus
from todoku.orders.holding import NewHold
from todoku.orders.listing import OrderFilter, Part, find_orders
from todoku.orders.placing import PlaceOrder, place_order
from todoku.orders.store import OrdersStore

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
STATUSES: Final = (OrderStatus.AWAITING_SHIPMENT, OrderStatus.COMPLETED)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Place orders of every age, with and without a deadline."""
    with Database.in_memory() as database:
        migrate(database, "todoku.orders")
        count = 0
        for age in (0, 299, 300, 301):
            for until_deadline in (None, -1, 0, 1):
                for status, held in itertools.product(STATUSES, (False, True)):
                    count += 1
                    _place(database, count, age, until_deadline, status, held=held)
        yield database


def _place(
    database: Database,
    count: int,
    age: int,
    until_deadline: int | None,
    status: OrderStatus,
    *,
    held: bool,
) -> None:
    command = PlaceOrder(
        order_id=f"{count:08x}-0000-7000-8000-000000000000",
        user_id="u",
        items=(OrderedItem(product_id="a", quantity=1, price=1),),
        currency="JPY",
        holds=(NewHold(holder="fraud-review", reason="?"),) * held,
    )
    deadline = None if until_deadline is None else NOW + until_deadline * SECOND
    order, _ = place_order(None, command, NOW - age * SECOND)
    order = msgspec.structs.replace(order, status=status, tracking_number="T", deadline=deadline)
    with database.transaction() as connection:
        unit_of_work = OrdersStore().load(connection, [command], StateCache(0))
        unit_of_work.put(command, order)
        OrdersStore().save(connection, unit_of_work, NOW)


def test_lists_and_the_audit_agree_on_what_is_overdue(database: Database) -> None:
    with database.read() as connection:
        listed = find_orders(connection, OrderFilter(overdue_at=NOW), Part(1_000)).orders
        audited = {
            known.order_id
            for known in known_orders(connection)
            if not ORDER.by_name[str(known.status)].terminal
            and (at := overdue_from(known.accepted_at, known.deadline, held=known.held))
            and at < NOW
        }
    assert {order.id for order in listed} == audited
    assert len(audited) == 4 + 3 + 4, (
        "those of 301 seconds ago, younger ones after their deadline, and held ones after theirs"
    )

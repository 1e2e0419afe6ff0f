"""Lists of orders on both databases: whatever the filters, the pages together are what matches."""

import itertools
import uuid
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import Connection, Engine, select, text
from uuid_utils import uuid7

from todoku.contracts import OrderedItem
from todoku.database import Database, migrate
from todoku.engine.dead_letters import DeadLetter
from todoku.orders import listing
from todoku.orders.domain import Order, OrderStatus
from todoku.orders.holding import NewHold, holds_with_order
from todoku.orders.listing import OrderFilter, Part, count_orders, find_orders
from todoku.orders.parking import ParkedMessage
from todoku.orders.placing import PlaceOrder, place_order
from todoku.orders.store import (
    OrdersStore,
    OrdersUnitOfWork,
    orders,
    parked_messages,
    with_items,
)

BEGIN: Final = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
COUNT: Final = 240
NOW: Final = BEGIN + timedelta(seconds=2 * COUNT)
STATUSES: Final = tuple(OrderStatus)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    if request.param == "sqlite":
        url: Any = tmp_path_factory.mktemp("orders") / "orders.db"
    else:
        url = _new_postgres(request.getfixturevalue("postgres_server"))
    with Database.open(url) as database:
        migrate(database, "todoku.orders")
        with database.transaction() as connection:
            _fill(connection)
        yield database


def _new_postgres(server: Engine) -> str:
    """Create a database, which is dropped with its server."""
    name = f"lists_{uuid.uuid4().hex}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = server.url.set(drivername="postgresql", database=name)
    return url.render_as_string(hide_password=False)


def _order(number: int, random: Random) -> Order:
    """Return an order that was decided on some time after its request."""
    arrived = BEGIN + timedelta(seconds=2 * number)
    command = PlaceOrder(
        order_id=str(uuid7(nanoseconds=int(arrived.timestamp() * 1e9))),
        user_id=f"user-{random.randrange(4)}",
        items=tuple(
            OrderedItem(product_id=f"product-{n}", quantity=1, price=100)
            for n in random.sample(range(6), 2)
        ),
        currency="JPY",
    )
    accepted = arrived + timedelta(seconds=random.choice([0, 0, 0.2, 20, -2]))
    order, _ = place_order(None, command, accepted)
    deadline = accepted + timedelta(seconds=random.choice([10, 10_000]))
    # Of one that has ended, an older version has left the hold open.
    hold = NewHold(holder="fraud-review", reason="?")
    return msgspec.structs.replace(
        order,
        status=random.choice(STATUSES),
        tracking_number="T1",
        deadline=deadline,
        holds=holds_with_order(order.id, [hold][: number % 5 == 0], accepted),
    )


def _fill(connection: Connection) -> None:
    random = Random(12)
    unit_of_work = OrdersUnitOfWork({}, {})
    placed = [_order(number, random) for number in range(COUNT)]
    unit_of_work.after = {order.id: order for order in placed}
    OrdersStore().save(connection, unit_of_work, BEGIN)
    parked_messages.save(
        connection,
        [_message(order.id, service, random) for order in placed[::20] for service in ("a", "b")],
    )
    letters = [_letter(order.id, n) for n, order in enumerate([*placed[::60], placed[7]])]
    OrdersStore.tables.dead_letters.park(connection, letters, [])


def _message(order_id: str, service: str, random: Random) -> ParkedMessage:
    return ParkedMessage(
        service=service,
        letter_id="1",
        order_id=order_id,
        message_type="StockReservedEvent",
        error="Boom",
        parked_at=BEGIN,
        closed=random.random() < 0.3,
    )


def _letter(order_id: str, number: int) -> DeadLetter:
    return DeadLetter(
        id=str(number),
        subject="events",
        body=b"{}",
        event_id=None,
        event_type=None,
        key=order_id,
        parked_at=BEGIN,
        attempts=1,
        error="Boom: x",
        traceback=None,
        error_group=None,
    )


def _all(connection: Connection) -> list[Order]:
    rows = connection.execute(select(orders).order_by(orders.c.id)).all()
    return with_items(connection, rows)


def _matches(order: Order, parked: set[str], wanted: OrderFilter) -> bool:
    """Return whether an order is wanted, as the documentation of the filters says."""
    overdue_at = wanted.overdue_at
    return (
        (not wanted.statuses or order.status in wanted.statuses)
        and wanted.user_id in (None, order.user_id)
        and wanted.product_id in (None, *(item.product_id for item in order.items))
        and (wanted.created_from is None or order.created_at >= wanted.created_from)
        and (wanted.created_to is None or order.created_at < wanted.created_to)
        and (not wanted.parked or order.id in parked)
        and (not wanted.held or (bool(order.holds) and not order.status.terminal))
        and (
            overdue_at is None
            or (
                not order.status.terminal
                and (
                    (order.created_at < overdue_at - timedelta(seconds=300) and not order.holds)
                    or (order.deadline is not None and order.deadline < overdue_at)
                )
            )
        )
    )


def _parked(connection: Connection) -> set[str]:
    messages = parked_messages.table
    letters = OrdersStore.tables.dead_letters.table
    others = connection.scalars(select(messages.c.order_id).where(messages.c.closed == 0))
    own = connection.scalars(select(letters.c.order_id))
    return {*others, *own}


FILTERS: Final[dict[str, dict[str, Any]]] = {
    "status": {"statuses": (OrderStatus.PENDING,)},
    "statuses": {"statuses": (OrderStatus.COMPLETED, OrderStatus.CANCELLED, OrderStatus.PENDING)},
    "user": {"user_id": "user-1"},
    "product": {"product_id": "product-2"},
    "from": {"created_from": BEGIN + timedelta(seconds=100)},
    "to": {"created_to": BEGIN + timedelta(seconds=300)},
    "parked": {"parked": True},
    "held": {"held": True},
    "overdue": {"overdue_at": NOW},
    "nobody": {"user_id": "nobody"},
}
PAIRS: Final = [
    *((name,) for name in FILTERS),
    *itertools.combinations(FILTERS, 2),
    ("status", "user", "product", "from", "to"),
    ("statuses", "parked", "overdue"),
]


def _filter(names: Iterable[str]) -> OrderFilter:
    parts = [FILTERS[name] for name in names]
    return OrderFilter(**{key: value for part in parts for key, value in part.items()})


def _pages(connection: Connection, wanted: OrderFilter, part: Part) -> Iterator[list[str]]:
    while True:
        found = find_orders(connection, wanted, part)
        assert len(found.orders) <= part.limit
        yield [order.id for order in found.orders]
        if found.next_key is None:
            return
        part = msgspec.structs.replace(part, after=found.next_key)


@pytest.mark.parametrize("ascending", [False, True], ids=["newest first", "oldest first"])
@pytest.mark.parametrize("names", PAIRS, ids="+".join)
def test_pages_are_all_that_matches_in_sequence(
    database: Database, names: tuple[str, ...], ascending: bool
) -> None:
    wanted = _filter(names)
    with database.read() as connection:
        parked = _parked(connection)
        expected = [order for order in _all(connection) if _matches(order, parked, wanted)]
        for limit in (7, 200):
            pages = list(_pages(connection, wanted, Part(limit, ascending=ascending)))
            ids = [order.id for order in expected]
            assert list(itertools.chain(*pages)) == (ids if ascending else ids[::-1])
        assert count_orders(connection, wanted) == len(expected)


@pytest.mark.parametrize(
    "names", [*((name,) for name in FILTERS), ("product", "status")], ids="+".join
)
def test_pages_are_complete_with_few_candidates_at_a_time(
    database: Database, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "CANDIDATES_AT_ONCE", 10)
    monkeypatch.setattr(listing, "CANDIDATES_MAX", 20)
    monkeypatch.setattr(listing, "COUNTED_MAX", 20)
    monkeypatch.setattr(listing, "LINES_MAX", 30)
    wanted = _filter(names)
    with database.read() as connection:
        parked = _parked(connection)
        expected = [order.id for order in _all(connection) if _matches(order, parked, wanted)]
        found = itertools.chain(*_pages(connection, wanted, Part(5, ascending=True)))
        assert list(found) == expected
        total = count_orders(connection, wanted)
        assert int(str(total).removesuffix("+")) <= len(expected)
        assert str(total).endswith("+") or total == len(expected)

"""A database of an earlier version is upgraded: every open order has a deadline afterwards."""

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import inspect, text

import todoku.orders
from todoku.database import Database, migrate, to_microseconds
from todoku.engine import StateCache
from todoku.orders.domain import Order, OrderStatus
from todoku.orders.service import orders_service
from todoku.orders.store import history
from todoku.settings import Settings

LAST_OF_0_2_0: Final = "0007"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
WEEK: Final = timedelta(days=7)

OPEN: Final = {"pending": "PENDING", "reserved": "AWAITING_SHIPMENT"}
OTHERS: Final = {"completed": "COMPLETED", "cancelling": "CANCELLING"}

_insert = text(
    "INSERT INTO orders (id, user_id, total_amount, currency, shipping_address, status,"
    " tracking_number, event_count, created_at, updated_at, deadline)"
    " VALUES (:id, 'u', 1, 'JPY', '', :status, 't', 1, 1, 1, :deadline)"
)
ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-000000000001"
_insert_event = text(
    "INSERT INTO order_events (order_id, event_id, sequence, type, source, said_at, recorded_at,"
    " status, data)"
    " VALUES (:order_id, 'event', 1, 'OrderCreatedEvent', 'orders', 1, 1, 'PENDING', '{}')"
)


@pytest.fixture
def older_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a service with the migrations of version 0.2.0, and return the name of its package."""
    folder = tmp_path / "older_orders" / "migrations"
    folder.mkdir(parents=True)
    folder.with_name("__init__.py").touch()
    for path in todoku.orders.__path__:
        for file in Path(path, "migrations").glob("[0-9]*.py"):
            if file.name[:4] <= LAST_OF_0_2_0:
                shutil.copy(file, folder)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "older_orders"


def upgraded(database: Database, older: str, statuses: Mapping[str, str]) -> None:
    """Insert orders without a deadline, and one with, as a version before did; then upgrade."""
    migrate(database, older)
    with database.transaction() as connection:
        for order_id, status in statuses.items():
            row = {"id": order_id, "status": status, "deadline": None}
            connection.execute(_insert, row)
        refused = {"id": "refused", "status": "AWAITING_SHIPMENT"}
        connection.execute(_insert, {**refused, "deadline": to_microseconds(NOW)})
    migrate(database, "todoku.orders")


def test_open_orders_from_before_deadlines_get_one_from_the_settings(older_orders: str) -> None:
    service: Any = orders_service(Settings())
    agenda = service.agendas[0]
    with Database.in_memory() as database:
        upgraded(database, older_orders, OPEN | OTHERS)
        with database.transaction() as connection:
            due = agenda.find(connection, NOW, 10)
            assert {each.key for each in due} == OPEN.keys()
            unit_of_work = service.store.load(connection, due, StateCache(0))
            for each in due:
                after, events = agenda.decide(unit_of_work.view(each), NOW)
                assert events == []
                unit_of_work.put(each, after)
            service.store.save(connection, unit_of_work, NOW)
            assert agenda.find(connection, NOW, 10) == []
            again = service.store.load(connection, due, StateCache(0))
            for each in due:
                order = again.view(each)
                assert isinstance(order, Order)
                assert (order.deadline, order.due_at) == (NOW + WEEK, NOW + WEEK)
                assert order.status is OrderStatus(OPEN[order.id])


def test_order_from_before_is_not_cancelled_in_the_grace_period(older_orders: str) -> None:
    agenda = orders_service(Settings()).agendas[0]
    window = agenda.window_since(NOW, NOW)
    assert not window.is_open


def _is_clustered(database: Database) -> bool:
    with database.read() as connection:
        options = inspect(connection).get_table_options("order_events")
    return not options.get("sqlite_with_rowid", True)


def test_a_new_database_keeps_the_history_as_it_is_written() -> None:
    with Database.in_memory() as database:
        migrate(database, "todoku.orders")
        assert not _is_clustered(database)


def test_a_database_with_a_history_keeps_it_as_it_is(older_orders: str) -> None:
    """It is not copied: that would take minutes and as much space again."""
    with Database.in_memory() as database:
        migrate(database, older_orders)
        with database.transaction() as connection:
            connection.execute(_insert, {"id": ORDER_ID, "status": "PENDING", "deadline": None})
            connection.execute(_insert_event, {"order_id": ORDER_ID})
        migrate(database, "todoku.orders")
        assert _is_clustered(database)
        with database.read() as connection:
            (entry,) = history(connection, ORDER_ID)
        assert entry.event_id == "event"

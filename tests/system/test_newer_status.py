"""A status that only a newer version knows concerns its own order, and does not end the process."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from sqlalchemy import text

from todoku.broker import Delivery
from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ReservedItem,
    StockReservedEvent,
    seal,
)
from todoku.database import Database, migrate
from todoku.engine import Topology
from todoku.engine.messages import IncomingEvent, PendingCommand
from todoku.engine.writer import PostCommitActions, Writer
from todoku.inventory.domain import SetProduct
from todoku.lifecycle import UnknownStatus
from todoku.orders.cancellation import CancelOrder
from todoku.orders.domain import OrderStatus
from todoku.orders.listing import OrderFilter, Part, find_orders
from todoku.orders.placing import PlaceOrder
from todoku.orders.views import find_view
from todoku.settings import Settings
from todoku.system import system

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
NEWER: Final = "0198c2f0-7b1a-7c3e-9d55-000000000001"
OTHER: Final = "0198c2f0-7b1a-7c3e-9d55-000000000002"
TABLES: Final = {"orders": "orders", "inventory": "reservations", "shipping": "shipments"}


class Older:
    """A process of a version that does not know the status of an order."""

    def __init__(self, database: Database, name: str) -> None:
        services = {service.name: service for service in system.build(Settings(), effects={})}
        migrate(database, system[name].package)
        self.name = name
        self.database = database
        self._make = lambda: Writer(
            services[name], database, Topology(services.values()), owner="older"
        )
        self.writer = self._make()

    def follow(self, *events: Event) -> PostCommitActions:
        messages = [
            IncomingEvent(Delivery(event.subject, b"", 99, n, token=None), seal(event, NOW), event)
            for n, event in enumerate(events, start=1)
        ]
        return self.writer.step(messages, NOW, 10)

    def execute(self, *commands: Any) -> list[object]:
        pending = [PendingCommand(command, lambda _: None) for command in commands]
        return [result for _, result in self.writer.step(pending, NOW, 10).answers]

    def meet_newer_status(self, column: str = "status") -> None:
        """Bring one order into a status of a newer version."""
        key = "id" if self.name == "orders" else "order_id"
        with self.database.transaction() as connection:
            connection.execute(text("PRAGMA ignore_check_constraints = ON"))
            connection.execute(
                text(f"UPDATE {TABLES[self.name]} SET {column} = 'RETURNED' WHERE {key} = :id"),
                {"id": NEWER},
            )
        self.writer = self._make()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]


@pytest.fixture
def database() -> Iterator[Database]:
    with Database.in_memory() as database:
        yield database


def place(order_id: str) -> PlaceOrder:
    items = (OrderedItem(product_id="a", quantity=1, price=1),)
    return PlaceOrder(order_id=order_id, user_id="u", items=items, currency="JPY")


def reserved(order_id: str) -> StockReservedEvent:
    items = (ReservedItem(product_id="a", quantity=1),)
    return StockReservedEvent(order_id=order_id, items=items)


def change(kind: Any, order_id: str) -> Any:
    items = (CancelledItem(product_id="a", quantity=1),)
    return kind(order_id=order_id, change_id=f"change of {order_id}", items=items, whole=True)


def test_event_about_the_order_waits_and_those_about_others_are_decided(
    database: Database,
) -> None:
    older = Older(database, "orders")
    older.execute(place(NEWER), place(OTHER))
    older.meet_newer_status()
    actions = older.follow(reserved(NEWER), reserved(OTHER))
    assert [delivery.sequence for delivery, _ in actions.naks] == [1], "delivered again"
    assert actions.terms == []
    assert older.rows("SELECT id FROM dead_letters") == [], "never parked"
    assert older.rows("SELECT status FROM orders ORDER BY id") == [
        ("RETURNED",),
        ("AWAITING_SHIPMENT",),
    ]


def test_command_about_the_order_is_refused_with_its_status(database: Database) -> None:
    older = Older(database, "orders")
    older.execute(place(NEWER), place(OTHER))
    older.meet_newer_status()
    refused, done = older.execute(
        CancelOrder(order_id=NEWER, change_id="1"), CancelOrder(order_id=OTHER, change_id="2")
    )
    assert isinstance(refused, UnknownStatus)
    assert f"order {NEWER} has the status 'RETURNED'" in str(refused)
    assert getattr(done, "status", None) is OrderStatus.CANCELLING


def test_order_is_read_with_the_status_as_it_is_stored(database: Database) -> None:
    older = Older(database, "orders")
    older.execute(place(NEWER), place(OTHER))
    older.meet_newer_status()
    with database.read() as connection:
        view = find_view(connection, NEWER)
        listed = find_orders(connection, OrderFilter(), Part(10)).orders
    assert view is not None
    assert (view.status, view.status.terminal) == ("RETURNED", False)
    assert [order.status for order in listed] == ["PENDING", "RETURNED"]


def test_due_row_of_the_order_is_left_and_others_are_decided(database: Database) -> None:
    older = Older(database, "orders")
    older.execute(place(NEWER), place(OTHER))
    older.meet_newer_status()
    with database.transaction() as connection:
        connection.execute(text("UPDATE orders SET due_at = 1, deadline = 1"))
    older.writer.step([], NOW, 10)
    later = datetime(2030, 1, 2, tzinfo=UTC)
    older.writer.step([], later, 10)
    assert older.rows("SELECT status FROM orders ORDER BY id") == [("RETURNED",), ("CANCELLING",)]


@pytest.mark.parametrize("name", ["inventory", "shipping"])
def test_other_services_do_so_too(database: Database, name: str) -> None:
    older = Older(database, name)
    if name == "inventory":
        older.execute(SetProduct(product_id="a", name="A", price=1, stock_quantity=9))
        items = (OrderedItem(product_id="a", quantity=1, price=1),)
        older.follow(
            *(
                OrderCreatedEvent(order_id=key, user_id="u", items=items, total_amount=1)
                for key in (NEWER, OTHER)
            )
        )
        older.meet_newer_status("state")
        kind: Any = CancellationConfirmedEvent
    else:
        older.follow(reserved(NEWER), reserved(OTHER))
        older.meet_newer_status()
        kind = CancellationRequestedEvent
    actions = older.follow(change(kind, NEWER), change(kind, OTHER))
    assert [delivery.sequence for delivery, _ in actions.naks] == [1]
    assert len(actions.acks) == 1
    assert older.rows("SELECT id FROM dead_letters") == []

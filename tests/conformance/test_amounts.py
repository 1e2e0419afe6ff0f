"""Replicas of inventory reserve of the same product on PostgreSQL without waiting for each other's decisions,
and what they decide is right all the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, delete, select

from conformance.conftest import temporary_database
from system.test_statement_counts import (
    INVENTORY,
    NOW,
    ORDERS,
    SHIPPING,
    asked,
    incoming,
    order_id,
)
from todoku.contracts import (
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShippedItem,
)
from todoku.database import Database
from todoku.engine import Topology
from todoku.engine.messages import Message
from todoku.engine.writer import Writer
from todoku.inventory.domain import Product, Restock, SetLowStockThreshold, SetProduct
from todoku.inventory.store import InventoryStore, find_product, reservations


class Interrupted(InventoryStore):
    """A store that lets others commit between what a batch reads and what it writes."""

    def __init__(self) -> None:
        self.meanwhile: list[Callable[[], object]] = []
        self.loads: list[str] = []

    def load(self, *arguments: Any) -> Any:
        self.loads.append("locked")
        return super().load(*arguments)

    def load_unlocked(self, *arguments: Any) -> Any:
        self.loads.append("unlocked")
        found = super().load_unlocked(*arguments)
        if self.meanwhile:
            self.meanwhile.pop()()
        return found


class Inventory:
    """Two replicas of inventory; `one` is interrupted by what is in `meanwhile`, which `two` commits."""

    def __init__(self, database: Database, other: Database) -> None:
        self.database = database
        self.store = Interrupted()
        topology = Topology((ORDERS, INVENTORY, SHIPPING))
        service = replace(INVENTORY, store=self.store)
        self.one = Writer(service, database, topology, owner="one")
        self.two = Writer(INVENTORY, other, topology, owner="two")

    def decide(self, *messages: Message, meanwhile: Message | None = None) -> list[str]:
        """Commit a batch of `one`; return how its states were loaded."""
        self.store.loads.clear()
        if meanwhile is not None:
            self.store.meanwhile = [lambda: self.two.step([meanwhile], NOW, 0)]
        assert self.one.step(messages, NOW, 0).naks == []
        return self.store.loads

    def product(self) -> Product:
        with self.database.read() as connection:
            found = find_product(connection, "p")
        assert found is not None
        return found

    def amounts(self) -> tuple[int, int]:
        product = self.product()
        return product.on_hand, product.reserved

    def states(self) -> dict[str, str]:
        with self.database.read() as connection:
            rows = connection.execute(select(reservations.c.order_id, reservations.c.state))
            return {row.order_id: row.state for row in rows}

    def published(self, event_type: str) -> int:
        outbox = INVENTORY.store.tables.outbox.table
        with self.database.read() as connection:
            bodies = connection.scalars(select(outbox.c.body).distinct()).all()
        return sum(f'"type":"{event_type}"'.encode() in body for body in bodies)


@pytest.fixture(scope="module")
def url(postgres_server: Engine) -> Iterator[str]:
    """One database for all tests: creating one takes longer than a test."""
    with temporary_database(postgres_server) as url:
        with Database.open(url) as database, database.schema_change() as connection:
            INVENTORY.store.metadata.create_all(connection)
        yield url


@pytest.fixture
def inventory(url: str) -> Iterator[Inventory]:
    with Database.open(url) as database, Database.open(url) as other:
        with database.transaction() as connection:
            for table in INVENTORY.store.metadata.sorted_tables:
                connection.execute(delete(table))
        found = Inventory(database, other)
        product = SetProduct(product_id="p", name="n", price=1, stock_quantity=10)
        found.two.step([asked(product)], NOW, 0)
        yield found


def order(n: int, quantity: int = 1, *, waits: bool = False) -> Message:
    event = OrderCreatedEvent(
        order_id=order_id(n),
        user_id="user",
        items=(OrderedItem(product_id="p", quantity=quantity, price=1),),
        total_amount=quantity,
        **({"on_shortage": "wait", "created_at": NOW} if waits else {}),
    )
    return incoming(event)


def shipment(n: int, kind: type[Event], **more: str) -> Message:
    items = (ShippedItem(product_id="p", quantity=1),)
    return incoming(kind(order_id=order_id(n), shipment_id="s", items=items, **more))  # type: ignore[call-arg]


def completed(n: int) -> Message:
    return shipment(n, ShipmentCompletedEvent, tracking_number="t")


def failed(n: int) -> Message:
    return shipment(n, ShipmentFailedEvent, reason="none")


def threshold(pieces: int) -> Message:
    return asked(SetLowStockThreshold(product_id="p", change_id="c", threshold=pieces))


def test_both_commit_without_waiting(inventory: Inventory) -> None:
    assert inventory.decide(order(1, 2), meanwhile=order(2, 3)) == ["unlocked"]
    assert inventory.one.decided_anew == 0
    assert inventory.amounts() == (10, 5)


def test_every_movement_of_the_other_is_kept(inventory: Inventory) -> None:
    inventory.decide(*(order(n) for n in range(6)))
    assert inventory.decide(completed(0), failed(1), meanwhile=completed(2)) == ["unlocked"]
    assert inventory.decide(order(7), meanwhile=failed(3)) == ["unlocked"]
    assert inventory.amounts() == (8, 3)


def test_last_pieces_are_not_sold_twice(inventory: Inventory) -> None:
    assert inventory.decide(order(1, 6), meanwhile=order(2, 6)) == ["unlocked", "locked"]
    assert inventory.one.decided_anew == 1
    assert inventory.amounts() == (10, 6)
    assert inventory.states() == {order_id(1): "REFUSED", order_id(2): "RESERVED"}
    assert inventory.published("StockReservationFailedEvent") == 1


def test_scarce_product_is_decided_on_with_locks_at_once(inventory: Inventory) -> None:
    assert inventory.decide(order(1, 7), order(2, 7)) == ["unlocked"]
    assert inventory.amounts() == (10, 7)
    assert inventory.states() == {order_id(1): "RESERVED", order_id(2): "REFUSED"}


def test_threshold_that_is_set_meanwhile_is_noticed(inventory: Inventory) -> None:
    assert inventory.decide(order(1, 3), meanwhile=threshold(7)) == ["unlocked", "locked"]
    assert inventory.published("StockLowEvent") == 1
    assert inventory.product().low


def test_threshold_that_two_cross_together_is_told_of_once(inventory: Inventory) -> None:
    inventory.decide(threshold(4))
    assert inventory.decide(order(1, 3), meanwhile=order(2, 3)) == ["unlocked", "locked"]
    assert inventory.amounts() == (10, 6)
    assert inventory.published("StockLowEvent") == 1


def test_nobody_overtakes_an_order_that_waits_meanwhile(inventory: Inventory) -> None:
    inventory.decide(order(1, 5))
    waiting = order(2, 8, waits=True)
    assert inventory.decide(order(3, 1), meanwhile=waiting) == ["unlocked", "locked"]
    assert inventory.states()[order_id(3)] == "REFUSED"


def test_release_wakes_who_waits_meanwhile(inventory: Inventory) -> None:
    inventory.decide(order(1, 1), order(2, 9))
    waiting = order(3, 1, waits=True)
    assert inventory.decide(failed(1), meanwhile=waiting) == ["unlocked", "locked"]
    queue = inventory.product().queue
    assert queue is not None
    assert queue.due_at is not None


def test_other_changes_are_decided_on_with_locks(inventory: Inventory) -> None:
    restock = asked(Restock(product_id="p", quantity=1, adjustment_id="a"))
    assert inventory.decide(order(1), restock) == ["unlocked", "locked"]  # The one asks the other.
    assert inventory.amounts() == (11, 1)

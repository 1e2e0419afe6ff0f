"""Orders that wait for stock, with the real writer and a database in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import text

from todoku.broker import Delivery
from todoku.contracts import (
    NO_CONTEXT,
    CancellationConfirmedEvent,
    CancelledItem,
    Context,
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ShipmentFailedEvent,
    StockAwaitedEvent,
    decode,
    seal,
)
from todoku.database import Database
from todoku.engine import Topology
from todoku.engine.messages import IncomingEvent, Message, PendingCommand
from todoku.engine.writer import Writer
from todoku.inventory import queues
from todoku.inventory.domain import CorrectStock, Restock, SetProduct
from todoku.settings import Settings
from todoku.system import system

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
SERVICES: Final = system.build(Settings())
INVENTORY: Final = next(each for each in SERVICES if each.name == "inventory")


def order_id(n: int) -> str:
    return f"0198c2f0-7b1a-7c3e-9d55-{n:012x}"


class Shop:
    """Inventory, one batch after the other."""

    def __init__(self) -> None:
        self.database = Database.in_memory()
        with self.database.transaction() as connection:
            INVENTORY.store.metadata.create_all(connection)
        self.writer = Writer(INVENTORY, self.database, Topology(SERVICES), owner="test")
        self.published: list[Event] = []
        self.envelopes: list[Any] = []
        self.sequence = 0
        self.now = NOW

    def step(self, *batch: Message) -> Sequence[Event]:
        """Commit a batch; return what it has published."""
        self.now += timedelta(milliseconds=1)
        actions = self.writer.step(batch, self.now, 0)
        assert [error for _, error in actions.answers if isinstance(error, Exception)] == []
        assert actions.naks == []
        new = [decode(row.body) for row in actions.published]
        self.envelopes += [envelope for envelope, _ in new]
        events = [event for _, event in new]
        self.published += events
        return events

    def settle(self) -> None:
        """Commit batches until no walk is due."""
        while self.rows("SELECT 1 FROM due_queues"):
            self.step()

    def stock(self, **products: int) -> None:
        for key, quantity in products.items():
            self.do(SetProduct(product_id=key, name=key, price=1, stock_quantity=quantity))

    def do(self, command: Any) -> None:
        self.step(PendingCommand(command, lambda _: None))

    def restock(self, product_id: str, quantity: int) -> None:
        self.sequence += 1
        adjustment_id = f"a{self.sequence}"
        kind = Restock if quantity > 0 else CorrectStock
        self.do(kind(product_id=product_id, quantity=quantity, adjustment_id=adjustment_id))

    def arrived(self, event: Event, context: Context = NO_CONTEXT) -> IncomingEvent:
        self.sequence += 1
        delivery = Delivery(event.subject, b"", self.sequence, 1, token=None)
        return IncomingEvent(delivery, seal(event, self.now, context), event)

    def order(self, n: int, *, wait: bool = True, at: int | None = None, **lines: int) -> None:
        self.step(self.arrived(created(n, wait=wait, at=at, **lines), Context("alice")))

    def cancel(self, n: int, *, whole: bool = True, **lines: int) -> None:
        items = tuple(CancelledItem(product_id=key, quantity=q) for key, q in lines.items())
        self.sequence += 1
        event = CancellationConfirmedEvent(
            order_id=order_id(n), change_id=f"change {self.sequence}", items=items, whole=whole
        )
        self.step(self.arrived(event))

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def state(self, n: int) -> str:
        found = self.rows(
            f"SELECT DISTINCT state FROM reservations WHERE order_id = '{order_id(n)}'"
        )
        ((state,),) = found
        return str(state)

    def states(self, *orders: int) -> list[str]:
        self.settle()
        return [self.state(n) for n in orders]


def created(n: int, *, wait: bool = True, at: int | None = None, **lines: int) -> OrderCreatedEvent:
    event = OrderCreatedEvent(
        order_id=order_id(n),
        user_id="alice",
        items=tuple(OrderedItem(product_id=key, quantity=q, price=1) for key, q in lines.items()),
        total_amount=1,
    )
    if not wait:
        return event
    queued_at = NOW + timedelta(seconds=n if at is None else at)
    return OrderCreatedEvent(
        order_id=event.order_id,
        user_id=event.user_id,
        items=event.items,
        total_amount=1,
        on_shortage="wait",
        created_at=queued_at,
    )


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    shop.stock(p=0, q=0)
    return shop


def test_order_waits_for_missing_stock_and_is_served_by_a_restock(shop: Shop) -> None:
    shop.order(1, p=2)
    (awaited,) = [each for each in shop.published if isinstance(each, StockAwaitedEvent)]
    assert [(each.product_id, each.requested_quantity) for each in awaited.missing] == [("p", 2)]
    assert shop.states(1) == ["WAITING"]
    shop.restock("p", 1)
    assert shop.states(1) == ["WAITING"]
    shop.restock("p", 1)
    assert shop.states(1) == ["RESERVED"]
    assert shop.rows("SELECT queue FROM products WHERE id = 'p'") == [(None,)]


def test_served_order_is_told_of_in_the_context_in_which_it_was_placed(shop: Shop) -> None:
    shop.order(1, p=1)
    shop.restock("p", 1)
    shop.settle()
    reserved = next(each for each in shop.envelopes if each.type == "StockReservedEvent")
    awaited = next(each for each in shop.envelopes if each.type == "StockAwaitedEvent")
    assert (reserved.actor, reserved.causationid) == ("alice", awaited.id)


def test_order_without_the_wish_to_wait_is_refused_as_before(shop: Shop) -> None:
    shop.order(1, wait=False, p=1)
    assert shop.state(1) == "REFUSED"


def test_nobody_waits_for_a_product_that_does_not_exist(shop: Shop) -> None:
    shop.order(1, ghost=1)
    assert shop.state(1) == "REFUSED"


def test_queue_is_served_by_time_then_by_id(shop: Shop) -> None:
    for n, at in ((3, 1), (2, 1), (1, 2)):
        shop.order(n, at=at, p=1)
    shop.restock("p", 2)
    assert shop.states(3, 2, 1) == ["RESERVED", "RESERVED", "WAITING"]


def test_large_order_is_not_overtaken_by_smaller_ones(shop: Shop) -> None:
    shop.order(1, p=5)
    shop.order(2, p=1)
    shop.restock("p", 3)
    shop.order(3, p=1)
    shop.order(4, wait=False, p=1)
    assert shop.states(1, 2, 3, 4) == ["WAITING", "WAITING", "WAITING", "REFUSED"]
    shop.restock("p", 4)
    assert shop.states(1, 2, 3) == ["RESERVED", "RESERVED", "RESERVED"]


def test_order_that_lacks_another_product_is_passed_over_and_keeps_its_place(shop: Shop) -> None:
    shop.order(1, p=1, q=1)
    shop.order(2, p=1)
    shop.restock("p", 1)
    assert shop.states(1, 2) == ["WAITING", "RESERVED"]
    shop.order(3, p=1)
    shop.restock("q", 1)
    assert shop.states(1, 3) == ["WAITING", "WAITING"]
    shop.restock("p", 1)
    assert shop.states(1, 3) == ["RESERVED", "WAITING"]


def test_new_order_takes_pieces_that_nobody_can_use_yet(shop: Shop) -> None:
    shop.order(1, p=1, q=1)
    shop.restock("p", 1)
    shop.settle()
    shop.order(2, wait=False, p=1)
    assert shop.states(1, 2) == ["WAITING", "RESERVED"]


def test_new_order_does_not_overtake_those_whose_walk_is_due(shop: Shop) -> None:
    for n in range(1, 4):
        shop.order(n, p=1)
    batch = [
        PendingCommand(Restock(product_id="p", quantity=4, adjustment_id="a"), lambda _: None),
        shop.arrived(created(8, wait=False, p=1)),
        shop.arrived(created(9, wait=False, p=1)),
    ]
    shop.step(*batch)
    assert shop.states(1, 2, 3, 8, 9) == ["RESERVED", "RESERVED", "RESERVED", "RESERVED", "REFUSED"]


def test_released_and_corrected_pieces_serve_the_queue(shop: Shop) -> None:
    shop.restock("p", 1)
    shop.order(1, p=1)
    shop.order(2, p=1)
    assert shop.states(1, 2) == ["RESERVED", "WAITING"]
    failed = ShipmentFailedEvent(order_id=order_id(1), shipment_id="s", reason="", items=())
    shop.step(shop.arrived(failed))
    assert shop.states(1, 2) == ["RELEASED", "RESERVED"]


def test_order_that_is_cancelled_leaves_the_queue_to_those_behind_it(shop: Shop) -> None:
    shop.order(1, p=5)
    shop.order(2, p=2)
    shop.restock("p", 2)
    assert shop.states(1, 2) == ["WAITING", "WAITING"]
    shop.cancel(1, p=5)
    assert shop.states(1, 2) == ["CANCELLED", "RESERVED"]
    assert shop.published[-1].subject == "inventory.reserved"


def test_order_of_which_pieces_are_cancelled_waits_for_the_others(shop: Shop) -> None:
    shop.order(1, p=5, q=1)
    shop.restock("p", 2)
    shop.cancel(1, whole=False, p=3)
    assert shop.states(1) == ["WAITING"]
    shop.cancel(1, whole=False, q=1)
    assert shop.states(1) == ["RESERVED"]
    assert shop.rows("SELECT reserved_quantity, queue FROM products ORDER BY id") == [
        (2, None),
        (0, None),
    ]


def test_order_of_which_pieces_were_cancelled_before_it_arrives_waits_for_the_others(
    shop: Shop,
) -> None:
    shop.cancel(1, whole=False, q=3)
    shop.order(1, p=1, q=3)
    assert shop.states(1) == ["WAITING"]
    shop.restock("p", 1)
    assert shop.states(1) == ["RESERVED"]
    assert shop.rows("SELECT reserved_quantity, queue FROM products ORDER BY id") == [
        (1, None),
        (0, None),
    ]


def test_order_of_which_pieces_were_cancelled_before_it_arrives_leaves_its_queues_when_cancelled(
    shop: Shop,
) -> None:
    shop.cancel(1, whole=False, q=3)
    shop.order(1, p=5, q=4)
    shop.order(2, p=1, q=1)
    shop.restock("p", 1)
    shop.restock("q", 1)
    assert shop.states(1, 2) == ["WAITING", "WAITING"]
    shop.cancel(1, p=5, q=1)
    assert shop.states(1, 2) == ["CANCELLED", "RESERVED"]
    assert shop.rows("SELECT DISTINCT queue FROM products") == [(None,)]


def test_order_that_was_cancelled_before_it_arrives_does_not_wait(shop: Shop) -> None:
    shop.cancel(1, whole=False, q=1)
    shop.cancel(1, p=2)
    shop.order(1, p=2, q=1)
    assert shop.states(1) == ["CANCELLED"]
    assert shop.rows("SELECT DISTINCT queue FROM products") == [(None,)]


def test_pieces_that_are_cancelled_after_the_whole_order_change_nothing_in_the_queues(
    shop: Shop,
) -> None:
    shop.order(1, p=2, q=1)
    shop.cancel(1, p=2)
    shop.cancel(1, whole=False, q=1)
    assert shop.states(1) == ["CANCELLED"]
    assert shop.rows("SELECT DISTINCT queue FROM products") == [(None,)]


def test_long_queue_is_served_in_parts_while_others_go_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.step(*(shop.arrived(created(n, p=1)) for n in range(1, 501)))
    shop.settle()
    shop.restock("p", 600)
    steps = 0
    while shop.rows("SELECT 1 FROM due_queues"):
        steps += 1
        served = shop.step(shop.arrived(created(1_000 + steps, wait=False, p=1)))
        assert len(served) <= queues.PART + 1
    assert steps == 500 // queues.PART
    states = dict(shop.rows("SELECT state, count(*) FROM reservations GROUP BY state"))
    assert states == {"RESERVED": 500 + steps}


def test_queue_that_is_walked_again_serves_who_came_meanwhile(shop: Shop) -> None:
    """Most of the queue lacks another product, so that a walk takes several batches."""
    shop.step(*(shop.arrived(created(n, p=1, q=1)) for n in range(1, 121)))
    shop.settle()
    shop.restock("p", 2)
    shop.order(2_000, at=0, p=1)
    shop.order(3_000, at=9_000, p=1)
    assert shop.states(2_000, 3_000) == ["RESERVED", "RESERVED"]

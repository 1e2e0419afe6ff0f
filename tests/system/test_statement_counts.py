"""A batch costs a constant number of statements, however large it is."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import update

from engine.statements import listening
from todoku.broker import Delivery
from todoku.contracts import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    FailedItem,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    InventoryAuditAnchoredEvent,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    InventoryPausesChangedEvent,
    OrderCreatedEvent,
    OrderedItem,
    OrdersApiKeyChangedEvent,
    OrdersAuditAnchoredEvent,
    ParkingEvent,
    PersonErasedEvent,
    ProductChangedEvent,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    ShippingAuditAnchoredEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    ShippingPausesChangedEvent,
    StockAwaitedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    fact_id,
    seal,
)
from todoku.database import Database
from todoku.engine import IdempotencyKey, PostCommitActions, Service, Topology, key_id
from todoku.engine.messages import (
    IncomingEvent,
    Message,
    PendingCommand,
    Receipt,
    UndecodableMessage,
)
from todoku.engine.writer import Writer
from todoku.inventory.domain import (
    ArchiveProduct,
    CorrectStock,
    PublishCatalogue,
    Restock,
    SetLowStockThreshold,
    SetProduct,
)
from todoku.orders.cancellation import CancelOrder
from todoku.orders.holding import HoldOrder, NewHold, ReleaseHold
from todoku.orders.placing import PlaceOrder
from todoku.settings import Settings
from todoku.shipping.domain import Accepted, RecordAnswer, Rejected, Unknown
from todoku.shipping.store import shipments
from todoku.system import system

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
SIZES: Final = (1, 10, 200)
ORDERS, INVENTORY, SHIPPING = system.build(Settings())


class DeadLetterHandler:
    """The writer of a real service, on a database of its own."""

    def __init__(self, service: Service) -> None:
        self.database = Database.in_memory()
        with self.database.transaction() as connection:
            service.store.metadata.create_all(connection)
        topology = Topology((ORDERS, INVENTORY, SHIPPING))
        self.writer = Writer(service, self.database, topology, owner="test")

    def step(
        self, batch: Sequence[Message], *, effect_slots: int = 0, minutes: int = 0
    ) -> PostCommitActions:
        return self.writer.step(batch, NOW + timedelta(minutes=minutes), effect_slots)

    def count(self, batch: Sequence[Message], *, effect_slots: int = 0, minutes: int = 0) -> int:
        """Return how many statements a batch costs; everything in it must succeed."""
        with listening() as statements:
            actions = self.step(batch, effect_slots=effect_slots, minutes=minutes)
        assert actions.naks == []
        assert [error for _, error in actions.answers if isinstance(error, Exception)] == []
        return len(statements)


@pytest.fixture(params=[ORDERS, INVENTORY, SHIPPING], ids=lambda service: str(service.name))
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


def order_id(n: int) -> str:
    return f"0198c2f0-7b1a-7c3e-9d55-{n:012x}"


def incoming(event: Event) -> IncomingEvent:
    return IncomingEvent(Delivery(event.subject, b"", 1, 1, token=None), seal(event, NOW), event)


def asked(command: Any) -> PendingCommand:
    return PendingCommand(command, lambda _: None)


def product(n: int) -> str:
    return f"prod{n:03}"


def place(n: int) -> Message:
    items = tuple(OrderedItem(product_id=product(n + k), quantity=1, price=1) for k in range(3))
    return asked(PlaceOrder(order_id=order_id(n), user_id="user", items=items, currency="JPY"))


def place_with_key(n: int) -> Message:
    command = place(n).command  # type: ignore[union-attr]
    return PendingCommand(command, lambda _: None, key=IdempotencyKey(key_id("alice", str(n)), ""))


def created(n: int) -> Message:
    items = tuple(OrderedItem(product_id=product(n + k), quantity=1, price=1) for k in range(3))
    return incoming(
        OrderCreatedEvent(order_id=order_id(n), user_id="user", items=items, total_amount=3)
    )


def reserved(n: int) -> Message:
    items = tuple(ReservedItem(product_id=product(n + k), quantity=1) for k in range(3))
    return incoming(StockReservedEvent(order_id=order_id(n), items=items))


def refused(n: int) -> Message:
    failed = (FailedItem(product_id=product(n), requested_quantity=1, available_quantity=0),)
    return incoming(
        StockReservationFailedEvent(order_id=order_id(n), reason="none", failed_items=failed)
    )


def initiated(n: int) -> Message:
    return incoming(ShipmentInitiatedEvent(order_id=order_id(n), shipment_id="s"))


def booking_failed(n: int) -> Message:
    return incoming(
        BookingAttemptFailedEvent(
            order_id=order_id(n), shipment_id="s", attempts=1, error="e", next_attempt_at=NOW
        )
    )


def shipped(n: int) -> tuple[ShippedItem, ...]:
    return tuple(ShippedItem(product_id=product(n + k), quantity=1) for k in range(3))


def completed(n: int) -> Message:
    return incoming(
        ShipmentCompletedEvent(
            order_id=order_id(n), shipment_id="s", tracking_number="t", items=shipped(n)
        )
    )


def failed(n: int) -> Message:
    return incoming(
        ShipmentFailedEvent(order_id=order_id(n), shipment_id="s", reason="none", items=shipped(n))
    )


def told(n: int) -> Message:
    return incoming(
        ProductChangedEvent(
            product_id=product(n), version=n, name="n", price=1, currency="JPY", changed_at=NOW
        )
    )


def paused(n: int) -> Message:
    return incoming(InventoryPausesChangedEvent(service="inventory", version=n, pauses=()))


def paused_shipping(n: int) -> Message:
    return incoming(ShippingPausesChangedEvent(service="shipping", version=n, pauses=()))


def set_up(n: int) -> Message:
    return asked(SetProduct(product_id=product(n), name="n", price=1, stock_quantity=1_000))


def restock(n: int) -> Message:
    return asked(Restock(product_id=product(n), quantity=1, adjustment_id=f"a{n}"))


def correct(n: int) -> Message:
    return asked(CorrectStock(product_id=product(n), quantity=-1, adjustment_id=f"a{n}"))


def threshold(n: int) -> Message:
    return asked(SetLowStockThreshold(product_id=product(n), change_id=f"c{n}", threshold=5))


def set_up_empty(n: int) -> Message:
    return asked(SetProduct(product_id=product(n), name="n", price=1))


def created_to_wait(n: int) -> Message:
    items = tuple(OrderedItem(product_id=product(n + k), quantity=1, price=1) for k in range(3))
    return incoming(
        OrderCreatedEvent(
            order_id=order_id(n),
            user_id="user",
            items=items,
            total_amount=3,
            on_shortage="wait",
            created_at=NOW,
        )
    )


def awaited(n: int) -> Message:
    return incoming(StockAwaitedEvent(order_id=order_id(n), items=(), missing=(), queued_at=NOW))


def archive(n: int) -> Message:
    return asked(ArchiveProduct(product_id=product(n)))


def publish(n: int) -> Message:
    return asked(PublishCatalogue())


def answer(n: int) -> Message:
    published = (Accepted("t"), Rejected("no"), Unknown("?"))[n % 3]
    return asked(RecordAnswer(order_id=order_id(n), answer=published))


def parking(event: type[ParkingEvent]) -> "Make":
    def make(n: int) -> Message:
        return incoming(
            event(
                order_id=order_id(n),
                letter_id=f"letter {n}",
                message_type="OrderCreatedEvent",
                error="UnknownProduct",
                parked_at=NOW,
            )
        )

    return make


def erased(n: int) -> Message:
    digest = f"{'0f' * 16}:{'0f' * 32}"
    event = PersonErasedEvent(
        erasure_id=f"{order_id(n)}-1", digest=digest, order_ids=(order_id(n),)
    )
    return incoming(event)


def anchored(event: type[Any]) -> "Make":
    def make(n: int) -> Message:
        chain = f"{n:016x}-9f86d081"
        return incoming(event(service=event.publisher, chain=chain, sequence=1, hash="0f" * 32))

    return make


def told_of_key(n: int) -> Message:
    return incoming(
        OrdersApiKeyChangedEvent(
            key_id=f"{n:016x}",
            version=1,
            digest="0f" * 32,
            owner="user",
            scopes=("orders:read",),
            created_at=NOW,
        )
    )


def cancel(n: int) -> Message:
    return asked(CancelOrder(order_id=order_id(n), change_id=f"change {n}"))


def change(event: type[Any], *, whole: bool = True, **more: str) -> "Make":
    def make(n: int) -> Message:
        items = tuple(CancelledItem(product_id=product(n + k), quantity=1) for k in range(3))
        about = {"order_id": order_id(n), "change_id": f"change {n}", "items": items}
        return incoming(event(**about, whole=whole, **more))

    return make


def hold(n: int) -> Message:
    wanted = NewHold(holder="fraud-review", reason="?")
    return asked(HoldOrder(order_id=order_id(n), hold_id=f"hold {n}", hold=wanted))


def release(n: int) -> Message:
    return asked(ReleaseHold(order_id=order_id(n), hold_id=f"hold {n}"))


def held(event: type[Any], **more: str) -> "Make":
    def make(n: int) -> Message:
        about = {"order_id": order_id(n), "hold_id": f"hold {n}", "holder": "fraud-review"}
        return incoming(event(**about, reason="?", **more))

    return make


hold_requested = held(HoldRequestedEvent)
hold_released = held(HoldReleasedEvent, outcome="RELEASED")

requested = change(CancellationRequestedEvent)
confirmed = change(CancellationConfirmedEvent)

Make = Callable[[int], Message]

CASES: Final[dict[str, tuple[Service, list[Make], Make]]] = {
    "placing": (ORDERS, [], place),
    "placing again": (ORDERS, [place], place),
    "placing with keys": (ORDERS, [], place_with_key),
    "placing again with keys": (ORDERS, [place_with_key], place_with_key),
    "reserved": (ORDERS, [place], reserved),
    "refused": (ORDERS, [place], refused),
    "awaited": (ORDERS, [place], awaited),
    "initiated": (ORDERS, [place], initiated),
    "booking has failed": (ORDERS, [place], booking_failed),
    "completed": (ORDERS, [place], completed),
    "failed": (ORDERS, [place], failed),
    "cancelling": (ORDERS, [place], cancel),
    "cancelling again": (ORDERS, [place, cancel], cancel),
    "confirmed": (ORDERS, [place, cancel], confirmed),
    "too late": (ORDERS, [place, cancel], change(CancellationRefusedEvent)),
    "cancelled": (ORDERS, [place, cancel], change(StockReleasedEvent, outcome="RELEASED")),
    "holding": (ORDERS, [place], hold),
    "holding again": (ORDERS, [place, hold], hold),
    "hold confirmed": (ORDERS, [place, hold], held(HoldConfirmedEvent)),
    "hold refused": (ORDERS, [place, hold], held(HoldRefusedEvent)),
    "releasing a hold": (ORDERS, [place, hold], release),
    "parked at inventory": (ORDERS, [place], parking(InventoryMessageParkedEvent)),
    "closed at inventory": (ORDERS, [place], parking(InventoryMessageClosedEvent)),
    "parked at shipping": (ORDERS, [place], parking(ShippingMessageParkedEvent)),
    "closed at shipping": (ORDERS, [place], parking(ShippingMessageClosedEvent)),
    "told of a product": (ORDERS, [], told),
    "told of pauses of inventory": (ORDERS, [], paused),
    "told of pauses of shipping": (ORDERS, [], paused_shipping),
    "person erased, at inventory": (INVENTORY, [set_up, created], erased),
    "person erased, at shipping": (SHIPPING, [reserved], erased),
    "key of orders": (INVENTORY, [], told_of_key),
    "key of orders, at shipping": (SHIPPING, [], told_of_key),
    "anchor of orders": (INVENTORY, [], anchored(OrdersAuditAnchoredEvent)),
    "anchor of inventory": (ORDERS, [], anchored(InventoryAuditAnchoredEvent)),
    "anchor of shipping": (ORDERS, [], anchored(ShippingAuditAnchoredEvent)),
    "created, in stock": (INVENTORY, [set_up], created),
    "created, unknown": (INVENTORY, [], created),
    "deducting": (INVENTORY, [set_up, created], completed),
    "releasing": (INVENTORY, [set_up, created], failed),
    "cancelling reserved": (INVENTORY, [set_up, created], confirmed),
    "cancelling a line": (
        INVENTORY,
        [set_up, created],
        change(CancellationConfirmedEvent, whole=False),
    ),
    "created, a line cancelled before": (
        INVENTORY,
        [set_up, change(CancellationConfirmedEvent, whole=False)],
        created,
    ),
    "cancelling beforehand": (INVENTORY, [], confirmed),
    "created, cancelled before": (INVENTORY, [set_up, confirmed], created),
    "setting up": (INVENTORY, [], set_up),
    "restocking": (INVENTORY, [set_up], restock),
    "correcting": (INVENTORY, [set_up], correct),
    "setting a threshold": (INVENTORY, [set_up], threshold),
    "created, waiting": (INVENTORY, [set_up_empty], created_to_wait),
    "archiving": (INVENTORY, [set_up], archive),
    "publishing": (INVENTORY, [set_up], publish),
    "initiating": (SHIPPING, [], reserved),
    "cancelling initiated": (SHIPPING, [reserved], requested),
    "cancelling unknown": (SHIPPING, [], requested),
    "cancelling an initiated line": (
        SHIPPING,
        [reserved],
        change(CancellationRequestedEvent, whole=False),
    ),
    "initiating, cancelled before": (SHIPPING, [requested], reserved),
    "holding initiated": (SHIPPING, [reserved], hold_requested),
    "holding unknown": (SHIPPING, [], hold_requested),
    "initiating held": (SHIPPING, [hold_requested], reserved),
    "releasing initiated": (SHIPPING, [reserved, hold_requested], hold_released),
}
"""For each decision of each service: the service, the messages before it, and its message."""


@pytest.mark.parametrize("case", CASES)
def test_a_batch_of_any_size_costs_the_same_number_of_statements(case: str) -> None:
    service, before, make = CASES[case]
    counts = {}
    for size in SIZES:
        dead_letter_handler = DeadLetterHandler(service)
        for earlier in before:
            # Some more, so that every order finds its products.
            dead_letter_handler.step([earlier(n) for n in range(size + 3)])
        counts[size] = dead_letter_handler.count([make(n) for n in range(size)])
    assert len(set(counts.values())) == 1, counts


def test_every_decision_of_every_service_is_counted() -> None:
    counted = {
        (
            service.name,
            type(message.event if isinstance(message, IncomingEvent) else message.command),
        )
        for service, _, make in CASES.values()
        if isinstance(message := make(1), (IncomingEvent, PendingCommand))
    }
    assert counted == {
        (service.name, kind)
        for service in (ORDERS, INVENTORY, SHIPPING)
        for kind in (*service.event_handlers, *service.command_handlers)
        if kind is not RecordAnswer
    }


def test_due_rows_and_carrier_answers_of_any_number_cost_the_same() -> None:
    """An hour later whatever was initiated is due; the three answers of a carrier take turns."""
    counts = {}
    for size in (3, 30, 200):
        dead_letter_handler = DeadLetterHandler(SHIPPING)
        dead_letter_handler.step([reserved(n) for n in range(size)])
        claiming = dead_letter_handler.count([], effect_slots=size, minutes=60)
        answering = dead_letter_handler.count([answer(n) for n in range(size)], minutes=61)
        counts[size] = (claiming, answering)
    assert len(set(counts.values())) == 1, counts


def test_mixed_batch_of_any_size_costs_the_same() -> None:
    counts = {}
    for size in SIZES:
        dead_letter_handler = DeadLetterHandler(SHIPPING)
        dead_letter_handler.step([reserved(n) for n in range(1_000, 1_000 + size)])
        with dead_letter_handler.database.transaction() as connection:
            connection.execute(update(shipments).values(due_at=NOW))
        undecodable = [
            UndecodableMessage(Delivery("s", b"%d" % n, 1, n, token=None), "?", "?", again=False)
            for n in range(1_000, 1_000 + size)
        ]
        receipts = [
            Receipt("orders", (fact_id(order_id(n), "ShipmentInitiatedEvent"),))
            for n in range(1_000, 1_000 + size)
        ]
        batch = [*(reserved(n) for n in range(size)), *undecodable, *receipts]
        counts[size] = dead_letter_handler.count(batch, effect_slots=size)
    assert len(set(counts.values())) == 1, counts


def test_empty_batch_costs_two_statements_at_most(service: Service) -> None:
    assert DeadLetterHandler(service).count([]) <= 2

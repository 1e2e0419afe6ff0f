"""An example of every event: with every field, and with the required fields only."""

from datetime import UTC, datetime
from typing import Final

from todoku.contracts import (
    ActivePause,
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Envelope,
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
    LowStockThresholdChangedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
    OrdersApiKeyChangedEvent,
    OrdersAuditAnchoredEvent,
    ParkingEvent,
    PersonErasedEvent,
    PlacedHold,
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
    StockAdjustedEvent,
    StockAwaitedEvent,
    StockLowEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    fact_id,
    seal,
)
from todoku.events import Context

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
PRODUCT_ID: Final = "キーボード 1/2"
SHIPMENT_ID: Final = fact_id(ORDER_ID, "Shipment")
CHANGE_ID: Final = "0198c2f1-2a07-7d10-8f3b-5d1b6a9c0e42"
CANCELLED: Final = (
    CancelledItem(product_id="prod001", quantity=2),
    CancelledItem(product_id="prod002", quantity=1),
)
HOLD_ID: Final = "0198c2f1-31c4-7e95-a8d2-7b0c4f6e1d23"
TIME: Final = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ADDRESS: Final = "東京都千代田区千代田1-1"

HELD: Final = {
    "order_id": ORDER_ID,
    "hold_id": HOLD_ID,
    "holder": "fraud-review",
    "reason": "住所確認",
}
PLACED: Final = PlacedHold(
    hold_id=HOLD_ID, holder="fraud-review", reason="住所確認", expires_at=TIME
)
UNENDING: Final = PlacedHold(hold_id=CHANGE_ID, holder="alice", reason="Address check")

ANCHORS: Final = (
    OrdersAuditAnchoredEvent,
    InventoryAuditAnchoredEvent,
    ShippingAuditAnchoredEvent,
)
PAUSES: Final = (InventoryPausesChangedEvent, ShippingPausesChangedEvent)
PARKING: Final[tuple[type[ParkingEvent], ...]] = (
    InventoryMessageParkedEvent,
    InventoryMessageClosedEvent,
    ShippingMessageParkedEvent,
    ShippingMessageClosedEvent,
)

FULL: Final[tuple[Event, ...]] = (
    OrderCreatedEvent(
        order_id=ORDER_ID,
        user_id="user123",
        items=(
            OrderedItem(product_id="prod001", quantity=2, price=5000),
            OrderedItem(product_id="prod002", quantity=1, price=3000),
        ),
        total_amount=13000,
        currency="EUR",
        shipping_address=ADDRESS,
    ),
    StockReservedEvent(
        order_id=ORDER_ID,
        items=(
            ReservedItem(product_id="prod001", quantity=2),
            ReservedItem(product_id="prod002", quantity=1),
        ),
        shipping_address=ADDRESS,
    ),
    StockReservationFailedEvent(
        order_id=ORDER_ID,
        reason="insufficient stock (prod001: 2 requested, 1 available)",
        failed_items=(
            FailedItem(product_id="prod001", requested_quantity=2, available_quantity=1),
        ),
    ),
    ShipmentInitiatedEvent(order_id=ORDER_ID, shipment_id=SHIPMENT_ID, shipping_address=ADDRESS),
    ShipmentCompletedEvent(
        order_id=ORDER_ID,
        shipment_id=SHIPMENT_ID,
        tracking_number="SIM-3F6A1C2B4D5E",
        items=(ShippedItem(product_id="prod001", quantity=2),),
    ),
    ShipmentFailedEvent(
        order_id=ORDER_ID,
        shipment_id=SHIPMENT_ID,
        reason="The simulated carrier had no room for this parcel.",
        items=(ShippedItem(product_id="prod001", quantity=2),),
    ),
    BookingAttemptFailedEvent(
        order_id=ORDER_ID,
        shipment_id=SHIPMENT_ID,
        attempts=3,
        error="TimeoutError: 応答がありません",
        next_attempt_at=TIME,
    ),
    OrderCompletedEvent(
        order_id=ORDER_ID,
        user_id="user123",
        items=(OrderedItem(product_id="prod001", quantity=2, price=5000),),
        total_amount=10000,
        currency="EUR",
        shipment_id=SHIPMENT_ID,
        tracking_number="SIM-3F6A1C2B4D5E",
    ),
    OrderCancelledEvent(
        order_id=ORDER_ID,
        user_id="user123",
        status="SHIPMENT_FAILED",
        reason="The simulated carrier had no room for this parcel.",
        items=(OrderedItem(product_id="prod001", quantity=2, price=5000),),
        total_amount=10000,
        currency="EUR",
        shipment_id=SHIPMENT_ID,
    ),
    CancellationRequestedEvent(
        order_id=ORDER_ID,
        change_id=CHANGE_ID,
        items=CANCELLED,
        whole=True,
        reason="二重注文",
        requested_by="user123",
    ),
    CancellationConfirmedEvent(order_id=ORDER_ID, change_id=CHANGE_ID, items=CANCELLED, whole=True),
    CancellationRefusedEvent(
        order_id=ORDER_ID,
        change_id=CHANGE_ID,
        items=CANCELLED[:1],
        whole=False,
        reason="The carrier was already called.",
    ),
    StockReleasedEvent(
        order_id=ORDER_ID, change_id=CHANGE_ID, items=CANCELLED, whole=True, outcome="RELEASED"
    ),
    ProductChangedEvent(
        product_id=PRODUCT_ID,
        version=1893553445678,
        name="Super Keyboard",
        price=5000,
        currency="EUR",
        changed_at=TIME,
        archived=True,
        opening_stock=10,
    ),
    HoldRequestedEvent(**HELD, expires_at=TIME, with_order=True, requested_by="risk-engine"),
    HoldReleasedEvent(**HELD, outcome="EXPIRED", with_order=True, released_by="alice"),
    HoldConfirmedEvent(**HELD),
    HoldRefusedEvent(**HELD, refusal="The carrier was already called."),
    StockAwaitedEvent(
        order_id=ORDER_ID,
        items=(ReservedItem(product_id="prod001", quantity=2),),
        missing=(FailedItem(product_id="prod001", requested_quantity=2, available_quantity=1),),
        queued_at=TIME,
        shipping_address=ADDRESS,
        total_amount=10000,
        currency="EUR",
        holds=(PLACED,),
    ),
    StockAdjustedEvent(
        product_id=PRODUCT_ID,
        adjustment_id=CHANGE_ID,
        quantity=-2,
        kind="CORRECTION",
        code="DAMAGE",
        reason="落下",
        by="alice",
    ),
    LowStockThresholdChangedEvent(
        product_id=PRODUCT_ID, change_id=CHANGE_ID, version=2, threshold=5
    ),
    StockLowEvent(product_id=PRODUCT_ID, cause_id=ORDER_ID, threshold=5, available_quantity=4),
    *(
        event(
            order_id=ORDER_ID,
            letter_id=SHIPMENT_ID,
            message_type="OrderCreatedEvent",
            error="UnknownProduct",
            parked_at=TIME,
        )
        for event in PARKING
    ),
    *(
        event(
            service=event.publisher,
            version=3,
            pauses=(
                ActivePause(
                    id=ORDER_ID,
                    target=f"product:{PRODUCT_ID}",
                    paused_at=TIME,
                    paused_by="alice",
                    reason="回収",
                ),
            ),
        )
        for event in PAUSES
    ),
    OrdersApiKeyChangedEvent(
        key_id="9f86d081884c7d65",
        version=2,
        digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        owner="user123",
        scopes=("orders:create:own", "orders:read:own"),
        created_at=TIME,
        expires_at=TIME,
        revoked_at=TIME,
    ),
    *(
        event(
            service=event.publisher,
            chain="0006e1c2f3a4b5c6-9f86d081",
            sequence=1204,
            hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        )
        for event in ANCHORS
    ),
    PersonErasedEvent(
        erasure_id=f"{ORDER_ID}-1",
        digest=f"{'5f' * 16}:{'9f' * 32}",
        order_ids=(ORDER_ID,),
    ),
)

MINIMAL: Final[tuple[Event, ...]] = (
    OrderCreatedEvent(order_id=ORDER_ID, user_id="", items=(), total_amount=0),
    StockReservedEvent(order_id=ORDER_ID, items=()),
    StockReservationFailedEvent(order_id=ORDER_ID, reason="", failed_items=()),
    ShipmentInitiatedEvent(order_id=ORDER_ID, shipment_id=""),
    ShipmentCompletedEvent(order_id=ORDER_ID, shipment_id="", tracking_number="", items=()),
    ShipmentFailedEvent(order_id=ORDER_ID, shipment_id="", reason="", items=()),
    BookingAttemptFailedEvent(
        order_id=ORDER_ID, shipment_id="", attempts=0, error="", next_attempt_at=TIME
    ),
    OrderCompletedEvent(order_id=ORDER_ID, user_id="", items=(), total_amount=0),
    OrderCancelledEvent(
        order_id=ORDER_ID, user_id="", status="", reason="", items=(), total_amount=0
    ),
    CancellationRequestedEvent(order_id=ORDER_ID, change_id="", items=(), whole=False),
    CancellationConfirmedEvent(order_id=ORDER_ID, change_id="", items=(), whole=False),
    CancellationRefusedEvent(order_id=ORDER_ID, change_id="", items=(), whole=False),
    StockReleasedEvent(order_id=ORDER_ID, change_id="", items=(), whole=False, outcome=""),
    ProductChangedEvent(
        product_id="prod001", version=1, name="", price=0, currency="JPY", changed_at=TIME
    ),
    HoldRequestedEvent(order_id=ORDER_ID, hold_id="", holder="", reason=""),
    HoldReleasedEvent(order_id=ORDER_ID, hold_id="", holder="", reason="", outcome=""),
    HoldConfirmedEvent(order_id=ORDER_ID, hold_id="", holder="", reason=""),
    HoldRefusedEvent(order_id=ORDER_ID, hold_id="", holder="", reason=""),
    StockAwaitedEvent(order_id=ORDER_ID, items=(), missing=(), queued_at=TIME),
    StockAdjustedEvent(product_id="prod001", adjustment_id="", quantity=0, kind=""),
    LowStockThresholdChangedEvent(product_id="prod001", change_id="", version=1),
    StockLowEvent(product_id="prod001", cause_id="", threshold=0, available_quantity=0),
    *(
        event(order_id=ORDER_ID, letter_id="", message_type="", error="", parked_at=TIME)
        for event in PARKING
    ),
    *(event(service=event.publisher, version=1, pauses=()) for event in PAUSES),
    OrdersApiKeyChangedEvent(
        key_id="9f86d081884c7d65", version=1, digest="", owner="", scopes=(), created_at=TIME
    ),
    *(event(service=event.publisher, chain="", sequence=1, hash="") for event in ANCHORS),
    PersonErasedEvent(erasure_id="1", digest="", order_ids=()),
)

GROWN: Final[dict[str, Event]] = {
    "OrderCreatedEvent.waits": OrderCreatedEvent(
        order_id=ORDER_ID,
        user_id="user123",
        items=(OrderedItem(product_id="prod001", quantity=2, price=5000),),
        total_amount=10000,
        on_shortage="wait",
        created_at=TIME,
    ),
    "OrderCreatedEvent.deadline": OrderCreatedEvent(
        order_id=ORDER_ID,
        user_id="user123",
        items=(OrderedItem(product_id="prod001", quantity=2, price=5000),),
        total_amount=10000,
        deadline=TIME,
    ),
    "OrderCreatedEvent.holds": OrderCreatedEvent(
        order_id=ORDER_ID,
        user_id="user123",
        items=(OrderedItem(product_id="prod001", quantity=2, price=5000),),
        total_amount=10000,
        holds=(PLACED, UNENDING),
    ),
    "StockReservedEvent.holds": StockReservedEvent(
        order_id=ORDER_ID,
        items=(ReservedItem(product_id="prod001", quantity=2),),
        holds=(PLACED, UNENDING),
    ),
    "StockReservedEvent.amount": StockReservedEvent(
        order_id=ORDER_ID,
        items=(ReservedItem(product_id="prod001", quantity=2),),
        shipping_address=ADDRESS,
        total_amount=10000,
        currency="EUR",
    ),
    "StockReservedEvent.changes": StockReservedEvent(
        order_id=ORDER_ID,
        items=(ReservedItem(product_id="prod001", quantity=1),),
        shipping_address=ADDRESS,
        total_amount=10000,
        currency="EUR",
        changes=(CHANGE_ID,),
    ),
}
"""Events with the fields that they gained after a release, by the name of the golden file of each."""

CAUSED: Final = "ShipmentCompletedEvent.caused"
"""An envelope that names the event that led to it."""

SEALED: Final[dict[str, tuple[Envelope, Event]]] = {
    **{
        f"{type(event).__name__}.full": (
            seal(event, TIME, Context("user123", TRACEPARENT)),
            event,
        )
        for event in FULL
    },
    **{f"{type(event).__name__}.minimal": (seal(event, TIME), event) for event in MINIMAL},
    **{name: (seal(event, TIME), event) for name, event in GROWN.items()},
    CAUSED: (
        seal(FULL[4], TIME, Context(cause=fact_id(ORDER_ID, "ShipmentInitiatedEvent"))),
        FULL[4],
    ),
}
"""Each example in its envelope, by the name of its golden file."""

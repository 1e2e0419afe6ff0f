"""One of every event, all about one order and one of its products: what the documents show."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from todoku.contracts.anchors import (
    InventoryAuditAnchoredEvent,
    OrdersAuditAnchoredEvent,
    ShippingAuditAnchoredEvent,
)
from todoku.contracts.backorders import StockAwaitedEvent
from todoku.contracts.changes import CancelledItem
from todoku.contracts.holds import (
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
)
from todoku.contracts.inventory import (
    FailedItem,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    ProductChangedEvent,
    ReservedItem,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.contracts.keys import OrdersApiKeyChangedEvent
from todoku.contracts.orders import (
    CancellationRequestedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
)
from todoku.contracts.pauses import (
    ActivePause,
    InventoryPausesChangedEvent,
    ShippingPausesChangedEvent,
)
from todoku.contracts.persons import PersonErasedEvent
from todoku.contracts.shipping import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
)
from todoku.contracts.stock import (
    LowStockThresholdChangedEvent,
    StockAdjustedEvent,
    StockLowEvent,
)
from todoku.events import Event, fact_id

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
SHIPMENT_ID: Final = fact_id(ORDER_ID, "Shipment")
LETTER_ID: Final = fact_id(ORDER_ID, "OrderCreatedEvent")
ADJUSTMENT_ID: Final = "0198c2f1-5b3c-7a44-8e21-9c0d3b7f6a15"
CHANGE_ID: Final = "0198c2f1-2a07-7d10-8f3b-5d1b6a9c0e42"
HOLD_ID: Final = "0198c2f1-31c4-7e95-a8d2-7b0c4f6e1d23"
SAID_AT: Final = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
ADDRESS: Final = "1-1 Chiyoda, Tokyo"

ORDERED: Final = (
    OrderedItem(product_id="prod001", quantity=2, price=5000),
    OrderedItem(product_id="prod002", quantity=1, price=3000),
)

CANCELLED: Final = (
    CancelledItem(product_id="prod001", quantity=2),
    CancelledItem(product_id="prod002", quantity=1),
)

HELD: Final[dict[str, Any]] = {
    "order_id": ORDER_ID,
    "hold_id": HOLD_ID,
    "holder": "fraud-review",
    "reason": "Three orders to this address within an hour.",
}

EXAMPLES: Final[dict[type[Event], Event]] = {
    type(event): event
    for event in (
        OrderCreatedEvent(
            order_id=ORDER_ID,
            user_id="user123",
            items=ORDERED,
            total_amount=13000,
            shipping_address=ADDRESS,
            deadline=SAID_AT + timedelta(days=7),
        ),
        StockReservedEvent(
            order_id=ORDER_ID,
            items=(
                ReservedItem(product_id="prod001", quantity=2),
                ReservedItem(product_id="prod002", quantity=1),
            ),
            shipping_address=ADDRESS,
            total_amount=13000,
            currency="JPY",
        ),
        StockReservationFailedEvent(
            order_id=ORDER_ID,
            reason="insufficient stock (prod001: 2 requested, 1 available)",
            failed_items=(
                FailedItem(product_id="prod001", requested_quantity=2, available_quantity=1),
            ),
        ),
        ShipmentInitiatedEvent(
            order_id=ORDER_ID, shipment_id=SHIPMENT_ID, shipping_address=ADDRESS
        ),
        BookingAttemptFailedEvent(
            order_id=ORDER_ID,
            shipment_id=SHIPMENT_ID,
            attempts=3,
            error="TimeoutError: the carrier has not answered within 9 seconds",
            next_attempt_at=SAID_AT + timedelta(seconds=8),
        ),
        ShipmentCompletedEvent(
            order_id=ORDER_ID,
            shipment_id=SHIPMENT_ID,
            tracking_number="SIM-3F6A1C2B4D5E",
            items=(
                ShippedItem(product_id="prod001", quantity=2),
                ShippedItem(product_id="prod002", quantity=1),
            ),
        ),
        ShipmentFailedEvent(
            order_id=ORDER_ID,
            shipment_id=SHIPMENT_ID,
            reason="The simulated carrier had no room for this parcel.",
            items=(
                ShippedItem(product_id="prod001", quantity=2),
                ShippedItem(product_id="prod002", quantity=1),
            ),
        ),
        CancellationRequestedEvent(
            order_id=ORDER_ID,
            change_id=CHANGE_ID,
            items=CANCELLED,
            whole=True,
            reason="Ordered twice.",
            requested_by="user123",
        ),
        CancellationConfirmedEvent(
            order_id=ORDER_ID, change_id=CHANGE_ID, items=CANCELLED, whole=True
        ),
        CancellationRefusedEvent(
            order_id=ORDER_ID,
            change_id=CHANGE_ID,
            items=CANCELLED,
            whole=True,
            reason="The carrier was already called.",
        ),
        StockReleasedEvent(
            order_id=ORDER_ID, change_id=CHANGE_ID, items=CANCELLED, whole=True, outcome="RELEASED"
        ),
        HoldRequestedEvent(
            **HELD, expires_at=SAID_AT + timedelta(days=2), requested_by="risk-engine"
        ),
        HoldReleasedEvent(**HELD, outcome="RELEASED", released_by="alice"),
        HoldConfirmedEvent(**HELD),
        HoldRefusedEvent(**HELD, refusal="The carrier was already called."),
        OrderCompletedEvent(
            order_id=ORDER_ID,
            user_id="user123",
            items=ORDERED,
            total_amount=13000,
            shipment_id=SHIPMENT_ID,
            tracking_number="SIM-3F6A1C2B4D5E",
        ),
        OrderCancelledEvent(
            order_id=ORDER_ID,
            user_id="user123",
            status="SHIPMENT_FAILED",
            reason="The simulated carrier had no room for this parcel.",
            items=ORDERED,
            total_amount=13000,
            shipment_id=SHIPMENT_ID,
        ),
        ProductChangedEvent(
            product_id="prod001",
            version=1767605400000,
            name="Super Keyboard",
            price=5000,
            currency="JPY",
            changed_at=SAID_AT,
        ),
        StockAwaitedEvent(
            order_id=ORDER_ID,
            items=(
                ReservedItem(product_id="prod001", quantity=2),
                ReservedItem(product_id="prod002", quantity=1),
            ),
            missing=(FailedItem(product_id="prod001", requested_quantity=2, available_quantity=1),),
            queued_at=SAID_AT,
            shipping_address=ADDRESS,
            total_amount=13000,
            currency="JPY",
        ),
        StockAdjustedEvent(
            product_id="prod001",
            adjustment_id=ADJUSTMENT_ID,
            quantity=-2,
            kind="CORRECTION",
            code="DAMAGE",
            reason="Fell down.",
            by="alice",
        ),
        LowStockThresholdChangedEvent(
            product_id="prod001", change_id=CHANGE_ID, version=2, threshold=5
        ),
        StockLowEvent(product_id="prod001", cause_id=ORDER_ID, threshold=5, available_quantity=4),
        *(
            event(
                order_id=ORDER_ID,
                letter_id=LETTER_ID,
                message_type="OrderCreatedEvent",
                error="UndecodableEvent",
                parked_at=SAID_AT,
            )
            for event in (
                InventoryMessageParkedEvent,
                InventoryMessageClosedEvent,
                ShippingMessageParkedEvent,
                ShippingMessageClosedEvent,
            )
        ),
        *(
            event(
                service=event.publisher,
                version=1893553445678901,
                pauses=(
                    ActivePause(
                        id=LETTER_ID,
                        target=target,
                        paused_at=SAID_AT,
                        paused_by="alice",
                        reason="A batch is recalled.",
                    ),
                ),
            )
            for event, target in (
                (InventoryPausesChangedEvent, "service"),
                (ShippingPausesChangedEvent, "product:prod001"),
            )
        ),
        PersonErasedEvent(
            erasure_id=f"{LETTER_ID}-1",
            digest=f"{'5f' * 16}:{'9f' * 32}",
            order_ids=(ORDER_ID,),
        ),
        OrdersApiKeyChangedEvent(
            key_id="9f86d081884c7d65",
            version=1,
            digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            owner="user123",
            scopes=("orders:create:own", "orders:read:own"),
            created_at=SAID_AT,
            expires_at=SAID_AT + timedelta(days=90),
        ),
        *(
            event(
                service=event.publisher,
                chain="0006e1c2f3a4b5c6-9f86d081",
                sequence=1_204,
                hash="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            )
            for event in (
                OrdersAuditAnchoredEvent,
                InventoryAuditAnchoredEvent,
                ShippingAuditAnchoredEvent,
            )
        ),
    )
}
"""An example of each event type, by the type."""

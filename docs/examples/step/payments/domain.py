"""What a payment is, from the order to the end of its shipment. Pure: values in, values out.

    AUTHORIZED ──▶ CAPTURED (the parcel has gone)
         └───────▶ RELEASED (it will not go: the compensation)
    DECLINED

Here whoever orders has credit, up to a limit for each order. A payment provider would be called as a
carrier is: as an effect, with the order's id as idempotency key.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from todoku.contracts import (
    Event,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
)
from todoku.contracts.payments import PaymentAuthorizedEvent, PaymentDeclinedEvent

CREDIT_LIMIT = 100_000
"""What an order may cost at most, in minor units."""


class UnknownPayment(Exception):
    """There is no payment for this order."""


class PaymentStatus(StrEnum):
    """What has become of the money for an order."""

    AUTHORIZED = "AUTHORIZED"
    DECLINED = "DECLINED"
    CAPTURED = "CAPTURED"
    RELEASED = "RELEASED"


class Payment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The money for an order; `amount` is in minor units of `currency`."""

    order_id: str
    amount: int
    currency: str
    status: PaymentStatus
    updated_at: datetime


def authorize_payment(
    payment: Payment | None, event: OrderCreatedEvent, now: datetime
) -> tuple[Payment, list[Event]]:
    """Hold the money for an order, or decline. Decided once: either answer is a row that stays."""
    if payment is not None:
        return payment, []  # A repeat that outlived the inbox: the answer was said and received.
    declined = event.total_amount > CREDIT_LIMIT
    decided = Payment(
        order_id=event.order_id,
        amount=event.total_amount,
        currency=event.currency,
        status=PaymentStatus.DECLINED if declined else PaymentStatus.AUTHORIZED,
        updated_at=now,
    )
    if declined:
        reason = f"{event.total_amount} {event.currency} is above the limit of {CREDIT_LIMIT}"
        return decided, [PaymentDeclinedEvent(order_id=event.order_id, reason=reason)]
    return decided, [
        PaymentAuthorizedEvent(
            order_id=event.order_id,
            items=event.items,
            total_amount=event.total_amount,
            currency=event.currency,
            shipping_address=event.shipping_address,
        )
    ]


def capture_payment(
    payment: Payment | None, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Payment, list[Event]]:
    """The parcel has gone: the money is ours."""
    return _ended(payment, event, PaymentStatus.CAPTURED, now), []


def release_payment(
    payment: Payment | None, event: StockReservationFailedEvent | ShipmentFailedEvent, now: datetime
) -> tuple[Payment, list[Event]]:
    """Nothing will be shipped: the money is the customer's again."""
    return _ended(payment, event, PaymentStatus.RELEASED, now), []


def _ended(payment: Payment | None, event: Event, status: PaymentStatus, now: datetime) -> Payment:
    if payment is None:
        raise UnknownPayment(f"{type(event).__name__} for order {event.order_id}, never authorized")
    if payment.status is status:
        return payment  # A repeat that outlived the inbox.
    assert payment.status is PaymentStatus.AUTHORIZED, payment
    return msgspec.structs.replace(payment, status=status, updated_at=now)

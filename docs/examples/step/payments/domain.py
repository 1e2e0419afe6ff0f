"""Payments, from the order to the end of its shipment: pure functions.

    AUTHORIZED
    ├─ ShipmentCompletedEvent ─▶ CAPTURED
    └─ OrderCancelledEvent ─▶ RELEASED
    DECLINED

Every customer has credit up to a limit per order here. A payment provider would be called like a
carrier: as an effect, with the order id as idempotency key.
"""

from datetime import datetime

import msgspec

from todoku.contracts import (
    Event,
    OrderCancelledEvent,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
)
from todoku.contracts.payments import PaymentAuthorizedEvent, PaymentDeclinedEvent
from todoku.lifecycle import Lifecycle, Stage, Status

CREDIT_LIMIT = 100_000
"""The highest total of an order, in minor units."""


class UnknownPayment(Exception):
    """Raised when an order has no payment."""


class WrongTotal(Exception):
    """Raised when the total of an order is not the sum of its items: no money is held for it."""


class ContradictoryEvent(Exception):
    """Raised when an event contradicts the status of the payment."""


class PaymentStatus(Status):
    """The status of the payment for an order."""

    AUTHORIZED = (
        "AUTHORIZED",
        Stage(
            meaning="The money is held.",
            on=(OrderCreatedEvent,),
            publishes=(PaymentAuthorizedEvent,),
        ),
    )
    DECLINED = (
        "DECLINED",
        Stage(
            meaning="The order is above the limit.",
            on=(OrderCreatedEvent,),
            publishes=(PaymentDeclinedEvent,),
            failure=True,
        ),
    )
    CAPTURED = (
        "CAPTURED",
        Stage(
            meaning="The parcel has shipped.",
            after=("AUTHORIZED",),
            on=(ShipmentCompletedEvent,),
        ),
    )
    RELEASED = (
        "RELEASED",
        Stage(
            meaning="Nothing will be shipped: the compensating transaction.",
            after=("AUTHORIZED",),
            on=(OrderCancelledEvent,),
            failure=True,
            begins=True,
        ),
    )


PAYMENT = Lifecycle("payment", PaymentStatus)


class Payment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The payment for an order; `amount` is in minor units of `currency`."""

    order_id: str
    amount: int
    currency: str
    status: PaymentStatus
    updated_at: datetime


def authorize_payment(
    payment: Payment | None, event: OrderCreatedEvent, now: datetime
) -> tuple[Payment, list[Event]]:
    """Authorize the payment for an order, or decline it. The result is decided once and stored."""
    if payment is not None:
        return payment, []  # A duplicate after the inbox was pruned: the result was published.
    if event.total_amount != sum(item.quantity * item.price for item in event.items):
        raise WrongTotal(f"order {event.key}: {event.total_amount} is not the sum of its items")
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
            holds=event.holds,
            on_shortage=event.on_shortage,
            created_at=event.created_at,
        )
    ]


def capture_payment(
    payment: Payment | None, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Payment, list[Event]]:
    """Capture the payment: the parcel has shipped."""
    return _ended(payment, event, now), []


def release_payment(
    payment: Payment | None, event: OrderCancelledEvent, now: datetime
) -> tuple[Payment, list[Event]]:
    """Release the payment: nothing will be shipped."""
    if payment is None:
        # The order was cancelled before it arrived here: no money is ever held for it.
        return _never_authorized(event, now), []
    if payment.status is PaymentStatus.DECLINED:
        return payment, []  # No money is held.
    return _ended(payment, event, now), []


def _never_authorized(event: OrderCancelledEvent, now: datetime) -> Payment:
    return Payment(
        order_id=event.order_id,
        amount=event.total_amount,
        currency=event.currency,
        status=PaymentStatus.RELEASED,
        updated_at=now,
    )


def _ended(payment: Payment | None, event: Event, now: datetime) -> Payment:
    if payment is None:
        raise UnknownPayment(f"{type(event).__name__} for order {event.key}, never authorized")
    status = PAYMENT.next_status(payment.status, type(event))
    if status is None:
        raise ContradictoryEvent(
            f"{type(event).__name__} for order {event.key} contradicts its payment, {payment.status}"
        )
    if status is payment.status:
        return payment  # A duplicate after the inbox was pruned.
    return msgspec.structs.replace(payment, status=status, updated_at=now)

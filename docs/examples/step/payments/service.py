"""Event handlers of the payments service, the step between orders and inventory."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from todoku.contracts import (
    OrderCancelledEvent,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
)
from todoku.contracts.payments import PaymentAuthorizedEvent, PaymentDeclinedEvent
from todoku.engine import BySagaVersion, Decide, Service
from todoku.payments.domain import authorize_payment, capture_payment, release_payment
from todoku.payments.store import store
from todoku.settings import Settings

SINCE: Final = 2
"""The version of the saga that adds this step."""


def payments_service(settings: Settings) -> Service:
    """Build the service."""
    return Service(
        name=PaymentAuthorizedEvent.publisher,
        store=store,
        event_handlers={
            OrderCreatedEvent: BySagaVersion({SINCE: authorize_payment}),
            ShipmentCompletedEvent: BySagaVersion(
                {1: if_paid(capture_payment), SINCE: capture_payment}
            ),
            OrderCancelledEvent: BySagaVersion(
                {1: if_paid(release_payment), SINCE: release_payment}
            ),
        },
        publishes=(PaymentAuthorizedEvent, PaymentDeclinedEvent),
    )


def if_paid(decide: Decide) -> Decide:
    """Return the decision for an order that has a payment; one without is left alone."""

    def decided(payment: Any, event: Any, now: datetime) -> tuple[Any, Sequence[object]]:
        return (None, ()) if payment is None else decide(payment, event, now)

    return decided

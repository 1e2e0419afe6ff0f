"""How the events of the payments service read on a terminal."""

from collections.abc import Iterable

from todoku.contracts import OrderCreatedEvent
from todoku.contracts.payments import PaymentDeclinedEvent
from todoku.narration import Detail, Narration


def _declined(event: PaymentDeclinedEvent) -> Iterable[Detail]:
    yield Detail(event.reason, "compensation")


NARRATION = Narration(
    details={PaymentDeclinedEvent: _declined},
    awaited={OrderCreatedEvent: "payments to hold the money"},
)

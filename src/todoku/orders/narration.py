"""How the events of the orders service read on a terminal."""

from collections.abc import Iterable

from todoku.contracts import CancellationRequestedEvent, OrderCreatedEvent
from todoku.narration import Detail, Narration, item_list, money


def _created(event: OrderCreatedEvent) -> Iterable[Detail]:
    total = money(event.total_amount, event.currency)
    yield Detail(f"{event.user_id} orders {item_list(event.items)} for {total}")


def _requested(event: CancellationRequestedEvent) -> Iterable[Detail]:
    by = f"{event.requested_by} asks" if event.requested_by else "a request"
    what = "it" if event.whole else item_list(event.items)
    yield Detail(f"{by} to cancel {what}{f': {event.reason}' if event.reason else ''}")


NARRATION = Narration(details={OrderCreatedEvent: _created, CancellationRequestedEvent: _requested})

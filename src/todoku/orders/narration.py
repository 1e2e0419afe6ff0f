"""How the events of the orders service read on a terminal."""

from collections.abc import Iterable

from todoku.contracts import OrderCreatedEvent
from todoku.narration import Detail, Narration, item_list, money


def _created(event: OrderCreatedEvent) -> Iterable[Detail]:
    total = money(event.total_amount, event.currency)
    yield Detail(f"{event.user_id} orders {item_list(event.items)} for {total}")


NARRATION = Narration(details={OrderCreatedEvent: _created})

"""How the events of the orders service read on a terminal."""

from collections.abc import Iterable

from todoku.contracts import (
    CancellationRequestedEvent,
    HoldOutcome,
    HoldReleasedEvent,
    HoldRequestedEvent,
    OrderCreatedEvent,
)
from todoku.narration import Detail, Narration, item_list, money


def _created(event: OrderCreatedEvent) -> Iterable[Detail]:
    total = money(event.total_amount, event.currency)
    yield Detail(f"{event.user_id} orders {item_list(event.items)} for {total}")


def _requested(event: CancellationRequestedEvent) -> Iterable[Detail]:
    by = f"{event.requested_by} asks" if event.requested_by else "a request"
    what = "it" if event.whole else item_list(event.items)
    yield Detail(f"{by} to cancel {what}{f': {event.reason}' if event.reason else ''}")


def _hold_requested(event: HoldRequestedEvent) -> Iterable[Detail]:
    until = f" until {event.expires_at:%Y-%m-%d %H:%M:%S} UTC" if event.expires_at else ""
    yield Detail(f"{event.holder} holds it{until}: {event.reason}")


def _hold_released(event: HoldReleasedEvent) -> Iterable[Detail]:
    if event.outcome == HoldOutcome.EXPIRED:
        yield Detail(f"the hold of {event.holder} has expired")
    else:
        by = f" by {event.released_by}" if event.released_by else ""
        yield Detail(f"the hold of {event.holder} is released{by}")


NARRATION = Narration(
    details={
        OrderCreatedEvent: _created,
        CancellationRequestedEvent: _requested,
        HoldRequestedEvent: _hold_requested,
        HoldReleasedEvent: _hold_released,
    },
    awaited={HoldReleasedEvent: "shipping to go on"},
)

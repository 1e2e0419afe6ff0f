"""Define the changes of an order: what was asked to be cancelled, by whom, and what was decided."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from todoku.contracts import (
    CancellationRequestedEvent,
    CancelledItem,
    ChangeEvent,
    Personal,
    fact_id,
)


class ChangeState(StrEnum):
    """What shipping has decided about a change; a decided one is never decided again."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    REFUSED = "refused"


class Change(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of an order: `items` are to be cancelled; `whole` if nothing is left without them.

    `by` asked for it, None if that is unknown. Times are UTC; `refusal` says why it was refused.
    """

    id: str
    items: tuple[CancelledItem, ...]
    whole: bool
    state: ChangeState
    requested_at: datetime
    reason: str | None = None
    by: Annotated[str | None, Personal] = None
    decided_at: datetime | None = None
    refusal: str | None = None


def without(pieces: Mapping[str, int], changes: Iterable[Change]) -> dict[str, int]:
    """Return by product what is left of these pieces without those of the changes; of some nothing."""
    left = dict(pieces)
    for change in changes:
        for item in change.items:
            left[item.product_id] = left.get(item.product_id, 0) - item.quantity
    return left


def cancelled_lines(changes: Iterable[Change]) -> Iterable[Change]:
    """Return the changes that took single lines, or pieces of them, out of the order."""
    return (each for each in changes if each.state is ChangeState.CONFIRMED and not each.whole)


def cancelled_items(pieces: Mapping[str, int]) -> tuple[CancelledItem, ...]:
    """Return the items of a change: pieces by product."""
    return tuple(
        CancelledItem(product_id=product_id, quantity=quantity)
        for product_id, quantity in pieces.items()
    )


def requested_event(order_id: str, change: Change) -> CancellationRequestedEvent:
    """Return the event that announces a change."""
    return CancellationRequestedEvent(
        order_id=order_id,
        change_id=change.id,
        items=change.items,
        whole=change.whole,
        reason=change.reason or "",
        requested_by=change.by,
    )


BY_DEADLINE = "deadline"
"""Who asks for the cancellation of an order that is late."""


def deadline_change_id(order_id: str) -> str:
    """Return the id of the change that cancels an order at its deadline: there is one at most, so that its id
    tells where the request is lost."""
    return fact_id(order_id, "Deadline")


def change_of(event: ChangeEvent, time: datetime) -> Change:
    """Return the change that an event is about, as far as the event describes it: as requested then."""
    change = Change(
        id=event.change_id,
        items=event.items,
        whole=event.whole,
        state=ChangeState.REQUESTED,
        requested_at=time,
    )
    if isinstance(event, CancellationRequestedEvent):
        return msgspec.structs.replace(change, reason=event.reason or None, by=event.requested_by)
    return change

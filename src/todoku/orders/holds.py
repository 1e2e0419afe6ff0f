"""Define the holds of an order: who holds it, why, until when, and what became of each."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import UNSET

from todoku.contracts import (
    HoldEvent,
    HoldOutcome,
    HoldReleasedEvent,
    HoldRequestedEvent,
    Personal,
    PlacedHold,
)

HOLDS_MAX: Final = 50
"""How many holds an order has at most, those that no longer hold it included."""

BY_ENDING: Final = "ending"
"""Who releases the holds of an order that has ended."""


class HoldState(StrEnum):
    """What became of a hold: shipping confirms or refuses it; later it is released, or expires."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    RELEASED = "released"
    EXPIRED = "expired"


OPEN: Final = (HoldState.REQUESTED, HoldState.CONFIRMED)
"""The states in which a hold holds its order, or may do so."""


class Hold(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A hold of an order: `holder` holds it because of `reason`, until it is released or `expires_at`.

    `by` asked for it, and `released_by` released it; None if that is unknown. `with_order` says that it was
    in the request that placed the order. Shipping decided at `decided_at`; `refusal` says why it refused.
    Times are UTC.
    """

    id: str
    holder: str
    reason: str
    state: HoldState
    requested_at: datetime
    expires_at: datetime | None = None
    with_order: bool = False
    by: Annotated[str | None, Personal] = None
    decided_at: datetime | None = None
    refusal: str | None = None
    released_at: datetime | None = None
    released_by: Annotated[str | None, Personal] = None

    @property
    def is_open(self) -> bool:
        """Return whether it holds its order, or may do so."""
        return self.state in OPEN


def open_holds(holds: Iterable[Hold]) -> Sequence[Hold]:
    """Return those of these holds that are open."""
    return [hold for hold in holds if hold.is_open]


def held_since(holds: Iterable[Hold]) -> datetime | None:
    """Return since when an order with these holds is held; None if it is not."""
    return min((hold.requested_at for hold in open_holds(holds)), default=None)


def next_expiry(holds: Iterable[Hold]) -> datetime | None:
    """Return when the first of these holds expires; None if none does."""
    expiries = (hold.expires_at for hold in open_holds(holds))
    return min((at for at in expiries if at is not None), default=None)


def find_hold(holds: Iterable[Hold], hold_id: str) -> Hold | None:
    """Return the hold with this id, if there is one."""
    return next((hold for hold in holds if hold.id == hold_id), None)


def with_hold(holds: tuple[Hold, ...], hold: Hold) -> tuple[Hold, ...]:
    """Return the holds with this one, in the place of the one with its id or as the last."""
    return tuple(({each.id: each for each in holds} | {hold.id: hold}).values())


def closed(hold: Hold, state: HoldState, at: datetime | None, by: str | None = None) -> Hold:
    """Return the hold as it no longer holds its order."""
    return msgspec.structs.replace(hold, state=state, released_at=at, released_by=by)


def closed_by_ending(holds: tuple[Hold, ...], at: datetime) -> tuple[Hold, ...]:
    """Return the holds of an order that ended `at` this time: none is open."""
    return tuple(
        closed(hold, HoldState.RELEASED, at, BY_ENDING) if hold.is_open else hold for hold in holds
    )


def hold_requested(order_id: str, hold: Hold) -> HoldRequestedEvent:
    """Return the event that announces a hold."""
    return HoldRequestedEvent(
        order_id=order_id,
        hold_id=hold.id,
        holder=hold.holder,
        reason=hold.reason,
        expires_at=hold.expires_at,
        with_order=hold.with_order,
        requested_by=hold.by,
    )


def hold_released(order_id: str, hold: Hold) -> HoldReleasedEvent:
    """Return the event that tells that a hold no longer holds its order."""
    expired = hold.state is HoldState.EXPIRED
    return HoldReleasedEvent(
        order_id=order_id,
        hold_id=hold.id,
        holder=hold.holder,
        reason=hold.reason,
        outcome=HoldOutcome.EXPIRED if expired else HoldOutcome.RELEASED,
        with_order=hold.with_order,
        released_by=hold.released_by,
    )


def hold_of(event: HoldEvent, time: datetime) -> Hold:
    """Return the hold that an event is about, as far as the event describes it: as requested then."""
    hold = Hold(
        id=event.hold_id,
        holder=event.holder,
        reason=event.reason,
        state=HoldState.REQUESTED,
        requested_at=time,
    )
    if isinstance(event, HoldRequestedEvent):
        return msgspec.structs.replace(
            hold, expires_at=event.expires_at, with_order=event.with_order, by=event.requested_by
        )
    return hold


def placed_holds(holds: Iterable[Hold]) -> tuple[PlacedHold, ...]:
    """Return those of the holds that were in the request that placed the order, as its event has them."""
    return tuple(
        PlacedHold(
            hold_id=hold.id,
            holder=hold.holder,
            reason=hold.reason,
            expires_at=UNSET if hold.expires_at is None else hold.expires_at,
        )
        for hold in holds
        if hold.with_order
    )


def replayed_holds(placed: Iterable[PlacedHold], time: datetime) -> tuple[Hold, ...]:
    """Return the holds of an order that is restored from its event, published at `time`."""
    return tuple(
        Hold(
            id=hold.hold_id,
            holder=hold.holder,
            reason=hold.reason,
            state=HoldState.REQUESTED,
            requested_at=time,
            expires_at=None if hold.expires_at is UNSET else hold.expires_at,
            with_order=True,
        )
        for hold in placed
    )

"""Define the holds of a shipment: why the carrier is not called for it."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from todoku.contracts import HoldConfirmedEvent, HoldEvent, HoldRefusedEvent, PlacedHold

CARRIER_CALLED: Final = "The carrier was already called."


class ShipmentHold(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A hold of an order, `confirmed` or refused; decided `at` (UTC). It is open until `released_at`."""

    id: str
    holder: str
    reason: str
    confirmed: bool
    at: datetime
    released_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Return whether nothing may be booked because of it."""
        return self.confirmed and self.released_at is None


def find_hold(holds: Iterable[ShipmentHold], hold_id: str) -> ShipmentHold | None:
    """Return the hold with this id; None if it is not decided on yet."""
    return next((hold for hold in holds if hold.id == hold_id), None)


def decided_hold(asked: HoldEvent | PlacedHold, now: datetime, *, confirmed: bool) -> ShipmentHold:
    """Return a hold that was asked for, as it is decided now."""
    return ShipmentHold(
        id=asked.hold_id,
        holder=asked.holder,
        reason=asked.reason,
        confirmed=confirmed,
        at=now,
    )


def hold_answer(order_id: str, hold: ShipmentHold) -> HoldConfirmedEvent | HoldRefusedEvent:
    """Return the event that tells what was decided about a hold."""
    if hold.confirmed:
        return HoldConfirmedEvent(
            order_id=order_id, hold_id=hold.id, holder=hold.holder, reason=hold.reason
        )
    return HoldRefusedEvent(
        order_id=order_id,
        hold_id=hold.id,
        holder=hold.holder,
        reason=hold.reason,
        refusal=CARRIER_CALLED,
    )


def new_holds(
    known: tuple[ShipmentHold, ...], placed: Iterable[PlacedHold], now: datetime
) -> tuple[ShipmentHold, ...]:
    """Return those holds of the request that placed an order that are not known yet: they are confirmed,
    since nothing was booked before the order was known here."""
    return tuple(
        decided_hold(hold, now, confirmed=True)
        for hold in placed
        if find_hold(known, hold.hold_id) is None
    )

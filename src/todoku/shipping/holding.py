"""Decide whether an order can still be held, and call no carrier while it is: pure functions.

    orders      HoldRequestedEvent     ─▶ shipping
    shipping    HoldConfirmedEvent, HoldRefusedEvent  ─▶ orders
    orders      HoldReleasedEvent      ─▶ shipping

Shipping decides, because it owns the pivot of the saga. A shipment with an open hold never falls due. Each
hold is decided once, by its id, when any event about it arrives first: a release that overtakes its
request closes the hold before it holds anything. So does one that arrives before the order.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from todoku.contracts import (
    Event,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
)
from todoku.shipping.domain import Shipment, ShipmentStatus, expected_shipment
from todoku.shipping.holds import ShipmentHold, decided_hold, find_hold, hold_answer

PickupDelay = Callable[[str], timedelta]
"""Returns how long a shipment waits before the carrier is called, by its id."""


def decide_hold(
    shipment: Shipment | None, event: HoldRequestedEvent, now: datetime
) -> tuple[Shipment, list[Event]]:
    """Confirm that nothing is booked while the hold is open if the carrier was not called yet, else refuse
    it."""
    shipment = shipment or expected_shipment(event.order_id, now)
    if find_hold(shipment.holds, event.hold_id) is not None:
        return shipment, []  # Its release arrived first, or the order; or it is a duplicate.
    hold = _decided(shipment, event, now)
    return held_back(with_hold(shipment, hold)), [hold_answer(event.order_id, hold)]


def release_hold(
    shipment: Shipment | None,
    event: HoldReleasedEvent,
    now: datetime,
    *,
    pickup_delay: PickupDelay,
) -> tuple[Shipment, list[Event]]:
    """Close the hold. When the last one is closed, the carrier is called, not before it would have been
    called without any."""
    shipment = shipment or expected_shipment(event.order_id, now)
    known = find_hold(shipment.holds, event.hold_id)
    if known is not None and known.released_at is not None:
        return shipment, []  # A duplicate that arrived after the inbox was pruned.
    hold = known or _decided(shipment, event, now)
    closed = msgspec.structs.replace(hold, released_at=now)
    answers: list[Event] = [] if known else [hold_answer(event.order_id, hold)]
    return _resumed(with_hold(shipment, closed), now, pickup_delay), answers


def replay_hold_answer(
    shipment: Shipment | None, event: HoldConfirmedEvent | HoldRefusedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event what was decided about a hold. If it was released since, the event that
    told so follows: it is not this service's own."""
    shipment = shipment or expected_shipment(event.order_id, time)
    if find_hold(shipment.holds, event.hold_id) is not None:
        return shipment, []  # The backup had it.
    hold = decided_hold(event, time, confirmed=isinstance(event, HoldConfirmedEvent))
    return held_back(with_hold(shipment, hold)), []


def with_hold(shipment: Shipment, hold: ShipmentHold) -> Shipment:
    """Return the shipment with this hold, in the place of the one with its id or as the last."""
    holds = {each.id: each for each in shipment.holds} | {hold.id: hold}
    return msgspec.structs.replace(shipment, holds=tuple(holds.values()))


def held_back(shipment: Shipment) -> Shipment:
    """Return the shipment; with an open hold, it does not fall due."""
    if shipment.status is not ShipmentStatus.INITIATED or not shipment.held:
        return shipment
    return msgspec.structs.replace(shipment, due_at=None)


def _decided(
    shipment: Shipment, event: HoldRequestedEvent | HoldReleasedEvent, now: datetime
) -> ShipmentHold:
    """Return the hold as it is decided now. A restored database may have forgotten a call, which counts as
    made, except for what was held from the beginning."""
    too_late = shipment.call_is_certain if event.with_order else shipment.pivot_passed
    return decided_hold(event, now, confirmed=not too_late)


def _resumed(shipment: Shipment, now: datetime, pickup_delay: PickupDelay) -> Shipment:
    """Return the shipment; it falls due again if it was held and is not any more."""
    waits = shipment.status is ShipmentStatus.INITIATED and shipment.due_at is None
    if not waits or shipment.held:
        return shipment
    # A clock that was set back gives no later time than one that is right.
    opened_at = min(shipment.created_at, now)
    due_at = max(now, opened_at + pickup_delay(shipment.id))
    return msgspec.structs.replace(shipment, due_at=due_at, updated_at=now)

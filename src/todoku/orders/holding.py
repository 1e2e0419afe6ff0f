"""Decide on the holds of an order: they are requested and released here, and shipping decides on each.

    orders      HoldRequestedEvent, HoldReleasedEvent  ─▶ shipping
    shipping    HoldConfirmedEvent, HoldRefusedEvent  ─▶ orders

Shipping decides, because it owns the pivot. A hold does not change the status of its order: everything up to
the pivot goes on, its deadline too. An order that ends closes its holds.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec

from todoku.contracts import (
    Event,
    HoldConfirmedEvent,
    HoldOutcome,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    Personal,
    fact_id,
)
from todoku.orders.changes import ChangeState
from todoku.orders.domain import Order, OrderError, UnknownOrder, contradiction, known
from todoku.orders.holds import (
    BY_ENDING,
    HOLDS_MAX,
    Hold,
    HoldState,
    closed,
    closed_by_ending,
    find_hold,
    hold_of,
    hold_released,
    hold_requested,
    next_expiry,
    with_hold,
)

EXPIRES_AFTER_MAX: Final = timedelta(days=3_650)
"""How far ahead a hold may expire."""


class UnknownHold(OrderError):
    """The order has no hold with this id."""


class UnknownHolder(OrderError):
    """The holder is none of those that may hold orders."""


class InvalidHold(OrderError):
    """The expiry of a hold is in the past, or too far ahead."""


class TooManyHolds(OrderError):
    """The order has as many holds as it may have."""


class TooLateToHold(OrderError):
    """The order has ended, or the carrier was called for it."""


class NewHold(msgspec.Struct, frozen=True, kw_only=True):
    """A hold that is asked for: by whom, why and until when; None if it does not expire."""

    holder: str
    reason: str
    expires_at: datetime | None = None


class HoldOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an order. The edge generates `hold_id`, a UUIDv7; `by` is who asks."""

    order_id: str
    hold_id: str
    hold: NewHold
    by: Annotated[str | None, Personal] = None


class ReleaseHold(msgspec.Struct, frozen=True, kw_only=True):
    """Release a hold of an order; `by` is who asks."""

    order_id: str
    hold_id: str
    by: Annotated[str | None, Personal] = None


def hold_order(
    order: Order | None, command: HoldOrder, now: datetime, *, holders: Collection[str] = ()
) -> tuple[Order, list[Event]]:
    """Request the hold."""
    if order is None:
        raise UnknownOrder(f"No order has the id {command.order_id}.")
    if find_hold(order.holds, command.hold_id) is not None:
        # The same command, executed again after a commit whose result was unknown.
        return order, []
    if order.status.terminal or _carrier_called(order):
        raise TooLateToHold(_why_too_late(order))
    if len(order.holds) >= HOLDS_MAX:
        raise TooManyHolds(
            f"Order {order.id} has {len(order.holds)} holds, and may have {HOLDS_MAX} at most."
        )
    hold = requested_hold(command.hold_id, command.hold, now, holders=holders, by=command.by)
    return _changed(order, hold, now), [hold_requested(order.id, hold)]


def holds_with_order(
    order_id: str,
    wanted: Sequence[NewHold],
    now: datetime,
    *,
    holders: Collection[str] = (),
    by: str | None = None,
) -> tuple[Hold, ...]:
    """Return the holds of the request that places an order."""
    if not wanted:
        return ()
    made = tuple(
        requested_hold(
            fact_id(order_id, f"Hold {n}"), hold, now, holders=holders, by=by, with_order=True
        )
        for n, hold in enumerate(wanted, start=1)
    )
    if len(made) > HOLDS_MAX:
        raise TooManyHolds(f"{len(made)} holds are too many: an order may have {HOLDS_MAX}.")
    return made


def requested_hold(
    hold_id: str,
    wanted: NewHold,
    now: datetime,
    *,
    holders: Collection[str],
    by: str | None,
    with_order: bool = False,
) -> Hold:
    """Return a hold as it is requested. Only `holders` may hold orders; anybody if there are none."""
    if holders and wanted.holder not in holders:
        raise UnknownHolder(
            f"{wanted.holder!r} may not hold orders. These may: {', '.join(sorted(holders))}."
        )
    return Hold(
        id=hold_id,
        holder=wanted.holder,
        reason=wanted.reason,
        state=HoldState.REQUESTED,
        requested_at=now,
        expires_at=_expiry(wanted, now),
        with_order=with_order,
        by=by,
    )


def _expiry(wanted: NewHold, now: datetime) -> datetime | None:
    at = wanted.expires_at
    if at is None:
        return None
    if not now < at <= now + EXPIRES_AFTER_MAX:
        when = "is in the past" if at <= now else "is more than ten years ahead"
        raise InvalidHold(f"The expiry {at.isoformat()} {when}: it is {now.isoformat()} now.")
    return at.astimezone(UTC)


def release_hold(
    order: Order | None, command: ReleaseHold, now: datetime
) -> tuple[Order, list[Event]]:
    """Release the hold. One that no longer holds the order stays as it is, and that is the answer."""
    if order is None:
        raise UnknownOrder(f"No order has the id {command.order_id}.")
    hold = find_hold(order.holds, command.hold_id)
    if hold is None:
        raise UnknownHold(f"Order {order.id} has no hold with the id {command.hold_id}.")
    if not hold.is_open or order.status.terminal:
        return order, []
    released = closed(hold, HoldState.RELEASED, now, command.by)
    return _changed(order, released, now), [hold_released(order.id, released)]


def when_hold_expires(order: Order, now: datetime) -> tuple[Order, list[Event]]:
    """Let those holds expire whose time has come."""
    if order.status.terminal:
        # A process of an older version has ended it.
        return msgspec.structs.replace(
            order, holds=closed_by_ending(order.holds, order.updated_at)
        ), []
    events: list[Event] = []
    for hold in order.holds:
        if hold.is_open and hold.expires_at is not None and hold.expires_at <= now:
            expired = closed(hold, HoldState.EXPIRED, now)
            order = _changed(order, expired, now)
            events.append(hold_released(order.id, expired))
    return order, events


def hold_expires_at(state: object) -> datetime | None:
    """Return when the next hold of an order expires; None if none does, and for what is no order."""
    return next_expiry(state.holds) if isinstance(state, Order) and state.holds else None


def confirm_hold(
    order: Order | None, event: HoldConfirmedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that nothing is booked while the hold is open."""
    order = known(order, event)
    hold = find_hold(order.holds, event.hold_id) or hold_of(event, now)
    if hold.refusal is not None:
        raise contradiction(order, event)
    if hold.decided_at is not None:
        return order, []  # A duplicate that arrived after the inbox was pruned.
    decided = msgspec.structs.replace(hold, decided_at=now)
    if hold.state is HoldState.REQUESTED:
        decided = msgspec.structs.replace(decided, state=HoldState.CONFIRMED)
    return _changed(order, decided, now), []


def refuse_hold(
    order: Order | None, event: HoldRefusedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that it was too late: the order goes on as if nobody had asked."""
    order = known(order, event)
    hold = find_hold(order.holds, event.hold_id) or hold_of(event, now)
    if hold.decided_at is not None:
        if hold.refusal is None:
            raise contradiction(order, event)
        return order, []  # A duplicate that arrived after the inbox was pruned.
    decided = msgspec.structs.replace(hold, decided_at=now, refusal=event.refusal)
    if hold.is_open or hold.released_by == BY_ENDING:
        decided = closed(decided, HoldState.REFUSED, None)
    return _changed(order, decided, now), []


def replay_hold_request(
    order: Order | None, event: HoldRequestedEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Restore a hold that the database has lost from its own event, published at `time`.

    Raises `UnknownOrder` if it arrives before the event of its order: the recovery replays it again.
    """
    order = known(order, event)
    hold = find_hold(order.holds, event.hold_id) or hold_of(event, time)
    # Where the event of the order has restored it, this one says who asked for it.
    return _replayed(order, msgspec.structs.replace(hold, by=hold.by or event.requested_by)), []


def replay_hold_release(
    order: Order | None, event: HoldReleasedEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Restore a release that the database has lost from its own event, published at `time`. Raises
    `UnknownOrder`, as the replay of the request does."""
    order = known(order, event)
    hold = find_hold(order.holds, event.hold_id) or hold_of(event, time)
    if hold.released_at is not None and hold.released_by != BY_ENDING:
        return order, []  # The backup had it.
    expired = event.outcome == HoldOutcome.EXPIRED
    state = HoldState.EXPIRED if expired else HoldState.RELEASED
    return _replayed(order, closed(hold, state, time, event.released_by)), []


def republish_holds(order: Order) -> list[tuple[Event, datetime]]:
    """Return the requests of those holds that shipping has not answered, and the releases of all that were
    released; each with its time."""
    requests: list[tuple[Event, datetime]] = [
        (hold_requested(order.id, hold), hold.requested_at)
        for hold in order.holds
        if hold.decided_at is None
    ]
    releases = [
        (hold_released(order.id, hold), hold.released_at)
        for hold in order.holds
        if hold.released_at is not None
    ]
    return [*requests, *releases]


def _carrier_called(order: Order) -> bool:
    """Return whether shipping has refused something because the carrier was called."""
    decided = (change.state is ChangeState.REFUSED for change in order.changes)
    return any(decided) or any(hold.refusal is not None for hold in order.holds)


def _why_too_late(order: Order) -> str:
    if order.status.terminal:
        return f"Order {order.id} has ended: it is {order.status}."
    return f"The carrier was called for order {order.id}: it is {order.status}."


def _changed(order: Order, hold: Hold, updated_at: datetime) -> Order:
    """Return the order with this hold. One that has ended has no open hold, and keeps the time at which it
    ended."""
    holds = with_hold(order.holds, hold)
    if order.status.terminal:
        updated_at = order.updated_at
        holds = closed_by_ending(holds, updated_at)
    return msgspec.structs.replace(order, holds=holds, updated_at=updated_at)


def _replayed(order: Order, hold: Hold) -> Order:
    if find_hold(order.holds, hold.id) == hold:
        return order  # The backup had it.
    return _changed(order, hold, order.updated_at)

"""Tell what an open order waits for, and record what shipping publishes about it: pure functions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from todoku.contracts import BookingAttemptFailedEvent, Event
from todoku.orders.booking_failures import BookingFailure
from todoku.orders.domain import Order, OrderStatus, known
from todoku.orders.holds import held_since
from todoku.orders.parking import ParkedMessage
from todoku.orders.pausing import (
    PauseOfOrderView,
    Pauses,
    stopping_booking,
    stopping_release,
    stopping_restock,
)

NOTHING_PAUSED: Final[Pauses] = {}

RELEASE: Final = "release"
"""What an order waits for that is held before its carrier is called."""

RESTOCK: Final = "restock"
"""What an order waits for whose stock is missing."""

MANUAL_ACTION: Final = "manualAction"
"""What an order waits for that a dead letter is about."""


class WaitingView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an open order waits for, `since` when: `stock`, `restock` (stock is missing), `carrier`,
    `release` (of the holds that are open), or `cancellation` (that it is decided); `manualAction` if a
    message about the order is parked, the dead letter `letterId` of `service`. Later versions may add others.

    While the carrier has neither accepted nor rejected the parcel, `attempts` to book it have failed, the
    last one with `lastError`, and the next one is due at `nextAttemptAt`. That is as of `reportedAt`:
    shipping reports failed attempts of an order at most once a minute.

    `pauses` are those that keep it from going on: nothing of it starts before somebody resumes them.
    """

    what: str
    since: datetime
    service: str | None = None
    letter_id: str | None = None
    attempts: int | None = None
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    reported_at: datetime | None = None
    pauses: tuple[PauseOfOrderView, ...] = ()


def waiting_view(
    order: Order, parked: Sequence[ParkedMessage], pauses: Pauses = NOTHING_PAUSED
) -> WaitingView | None:
    """Return what an order waits for, given the parked messages about it and what is paused; None if it has
    ended."""
    if order.status.terminal:
        return None
    if parked:
        first = parked[0]
        return WaitingView(
            what=MANUAL_ACTION,
            since=first.parked_at,
            service=first.service,
            letter_id=first.letter_id,
        )
    since = order.status_since or order.updated_at
    if order.status is OrderStatus.PENDING and order.stock_awaited_at is not None:
        stopping = stopping_restock(pauses)
        return WaitingView(what=RESTOCK, since=order.stock_awaited_at, pauses=stopping)
    if order.status is not OrderStatus.AWAITING_SHIPMENT:
        return WaitingView(what=order.status.stage.waits_for, since=since)
    if order.holds and (held := held_since(order.holds)) is not None:
        stopping = stopping_release(pauses)
        return WaitingView(what=RELEASE, since=max(held, since), pauses=stopping)
    return _waiting_for_carrier(order, since, pauses)


def _waiting_for_carrier(order: Order, since: datetime, pauses: Pauses) -> WaitingView:
    stopping = stopping_booking(pauses, order.wanted) if pauses else ()
    waiting = WaitingView(what=order.status.stage.waits_for, since=since, pauses=stopping)
    failure = order.booking_failure
    if failure is None:
        return waiting
    return msgspec.structs.replace(
        waiting,
        attempts=failure.attempts,
        last_error=failure.error,
        next_attempt_at=failure.next_attempt_at,
        reported_at=failure.noted_at,
    )


def note_booking_failure(
    order: Order | None, event: BookingAttemptFailedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that an attempt to book the parcel has failed. It explains the order and decides nothing: its
    time of change stays."""
    order = known(order, event)
    last = order.booking_failure
    if order.status.terminal or (last is not None and last.attempts >= event.attempts):
        return order, []  # Late.
    failure = BookingFailure(
        attempts=event.attempts,
        error=event.error,
        next_attempt_at=event.next_attempt_at,
        noted_at=now,
    )
    return msgspec.structs.replace(order, booking_failure=failure), []

"""Tell why an order waits and what can be done, from the evidence: pure functions.

What is broken comes first. If nothing is, the order waits for what it is about: the carrier, stock, a hold, a
person.
"""

from datetime import datetime
from typing import Final

import msgspec

from todoku.cli.causes import Cause, as_stored, next_attempt
from todoku.cli.evidence import Evidence
from todoku.cli.faults import broken_services, faults
from todoku.cli.reasons import reasons
from todoku.cli.responses import Waiting
from todoku.orders.domain import OrderStatus

ENDED: Final = frozenset(status.value for status in OrderStatus if status.terminal)

UNDER_WAY: Final = frozenset(
    {"in-progress", "late", "lag", "carrier-due", "carrier-queue", "carrier-not-due", "waits"}
)
"""What an order waits for without a fault of its own: not worth a word where something is broken."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an order waits for and why: the first of the `causes` is the one to look at first."""

    order_id: str
    status: str
    waits_for: str | None = None
    since: datetime | None = None
    attempts: int | None = None
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    deadline: datetime | None = None
    causes: tuple[Cause, ...] = ()


def explain(evidence: Evidence) -> Explanation:
    """Return why the order waits."""
    order, shipment = evidence.order, evidence.shipment
    if order.status in ENDED:
        reason = f": {order.reason.rstrip('.')}" if order.reason else ""
        text = f"It has ended ({order.status}){reason}. It waits for nothing."
        # It waits for nothing, but who asks should know that the service does not work.
        asides = (
            (*as_stored(evidence), *broken_services(evidence)) if evidence.from_database else ()
        )
        causes = (Cause(code="ended", text=text), *asides)
        return Explanation(order_id=order.id, status=order.status, causes=causes)
    waiting = order.waiting_for or Waiting(what="", since=order.updated_at)
    attempts, error = waiting.attempts, waiting.last_error
    if shipment is not None and shipment.last_error:
        # Shipping tells how the last call ended at once, orders at most a minute later.
        attempts, error = shipment.attempts, shipment.last_error
    if evidence.letter is not None:
        attempts, error = evidence.letter.attempts, evidence.letter.error
    return Explanation(
        order_id=order.id,
        status=order.status,
        waits_for=waiting.what or None,
        since=waiting.since,
        attempts=attempts,
        last_error=error,
        next_attempt_at=next_attempt(evidence),
        deadline=order.deadline,
        causes=_causes(evidence),
    )


def _causes(evidence: Evidence) -> tuple[Cause, ...]:
    """Return what is broken, and what the order waits for, unless that only says that it is under way."""
    broken, waits = tuple(faults(evidence)), tuple(reasons(evidence))
    if not broken:
        return waits
    return (*broken, *(reason for reason in waits if reason.code not in UNDER_WAY))

"""What can keep an order waiting, and what can be done about it: shared by `faults` and `reasons`."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from todoku.cli.evidence import Evidence, ServiceState
from todoku.shipping.domain import ShipmentStatus

CONCERNED: Final[Mapping[str, tuple[str, ...]]] = {
    "stock": ("orders", "inventory"),
    "restock": ("orders", "inventory"),
    "carrier": ("orders", "shipping"),
    "release": ("orders", "shipping"),
    "cancellation": ("orders", "shipping", "inventory"),
}
"""The services whose work an order waits for, by what it waits for; of all else, every service."""

BOOKING: Final = ShipmentStatus.BOOKING.value


class Action(msgspec.Struct, frozen=True):
    """A command to type, and what for."""

    command: str
    purpose: str


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Something that keeps the order waiting: a `code` for programs, a sentence, and what can be done."""

    code: str
    text: str
    fix: str = ""
    actions: tuple[Action, ...] = ()


def next_attempt(evidence: Evidence) -> datetime | None:
    """Return when the carrier is called next, if that is known and still to come."""
    waiting, shipment = evidence.order.waiting_for, evidence.shipment
    if waiting is None or waiting.what != "carrier":
        return None
    if shipment is None:
        next_at = waiting.next_attempt_at
    else:
        # While a call is under way, it is when the call would be repeated after a crash.
        called = shipment.status == BOOKING and not shipment.last_error
        next_at = None if called else shipment.next_attempt_at
    return next_at if next_at is not None and next_at > evidence.now else None


def what_of(evidence: Evidence) -> str:
    """Return what the order waits for; empty if that is unknown."""
    waiting = evidence.order.waiting_for
    return waiting.what if waiting else ""


def concerned(evidence: Evidence) -> Iterator[tuple[str, ServiceState]]:
    """Yield the services whose work the order waits for."""
    names = CONCERNED.get(what_of(evidence), tuple(evidence.services))
    for name in names:
        if name in evidence.services:
            yield name, evidence.services[name]


def as_stored(evidence: Evidence) -> Iterator[Cause]:
    """Say that the order is as its database has it."""
    if evidence.from_database:
        yield Cause(
            code="as-stored",
            text="This is what the orders database has: the service itself did not answer.",
        )


def first_line(text: str) -> str:
    """Return the first line of an error, without its full stop."""
    return text.strip().partition("\n")[0].rstrip(".") if text else "an unknown error"


def as_sentence(text: str) -> str:
    """Return a fix as a sentence."""
    return f"{text[:1].upper()}{text[1:]}." if text else ""

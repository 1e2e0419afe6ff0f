"""Make the events that tell of dead letters about orders."""

from datetime import datetime
from typing import Protocol, TypeVar

from todoku.contracts.order_event import OrderEvent
from todoku.contracts.parking import ParkingEvent
from todoku.contracts.wire import EVENTS
from todoku.events import is_canonical_uuid

E = TypeVar("E", bound=ParkingEvent)

TYPES_NOT_ABOUT_ORDERS = frozenset(
    name for name, event in EVENTS.items() if not issubclass(event, OrderEvent)
)
"""The types of the built-in events that are about no order. One that is not built in may be about one."""


class Letter(Protocol):
    """What these events tell of a dead letter."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def event_type(self) -> str | None: ...
    @property
    def error_class(self) -> str: ...
    @property
    def parked_at(self) -> datetime: ...


def parking_event(kind: type[E], letter: Letter) -> E | None:
    """Return the event that tells of a letter, or None if its message is about no order."""
    if letter.key is None or not is_canonical_uuid(letter.key):
        return None  # The ids of orders are UUIDs.
    if not may_be_about_order(letter.event_type):
        return None  # The ids of products may be UUIDs, too.
    return kind(
        order_id=letter.key,
        letter_id=letter.id,
        message_type=letter.event_type or "",
        error=letter.error_class,
        parked_at=letter.parked_at,
    )


def may_be_about_order(event_type: str | None) -> bool:
    """Return whether a message of this type may be about an order. A type that is not built in may be."""
    return event_type not in TYPES_NOT_ABOUT_ORDERS

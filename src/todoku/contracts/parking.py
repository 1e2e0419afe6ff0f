"""Define what a service publishes when a message about an order waits there for manual action, and when
it no longer does. Each service has its own two events with these fields."""

from datetime import datetime
from typing import Annotated, Protocol, TypeVar

import msgspec

from todoku.contracts.order_event import OrderEvent
from todoku.events import is_canonical_uuid

E = TypeVar("E", bound="ParkingEvent")


class ParkingEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """Something about a dead letter: its id, the type of its message, the class of its error, and
    since when (UTC) it is parked. Both events have all of it, so that either may arrive first."""

    letter_id: str
    message_type: str
    error: str
    parked_at: Annotated[datetime, msgspec.Meta(tz=True)]

    @property
    def fact(self) -> str:
        """Return the name of the fact: an order may have several letters."""
        return f"{type(self).__name__} {self.letter_id}"


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
    """Return the event that tells of a letter, or None if its message is about no order: the ids of
    orders are UUIDs."""
    if letter.key is None or not is_canonical_uuid(letter.key):
        return None
    return kind(
        order_id=letter.key,
        letter_id=letter.id,
        message_type=letter.event_type or "",
        error=letter.error_class,
        parked_at=letter.parked_at,
    )

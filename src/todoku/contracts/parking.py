"""Define what a service publishes when a message about an order waits there for manual action, and when
it no longer does. Each service has its own two events with these fields."""

from datetime import datetime
from typing import Annotated

import msgspec

from todoku.contracts.order_event import OrderEvent


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

"""What a service says when a message about an order waits there for a person, and when it no longer
does. Each service has its own two events, made from these fields."""

from datetime import datetime

from todoku.contracts.envelope import Event


class ParkingEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """Something about a dead letter: which one, of which type the message is, the class of its
    error, and since when (UTC) it is parked. Both events say all of it, so that either may come
    first."""

    letter_id: str
    message_type: str
    error: str
    parked_at: datetime

    @property
    def fact(self) -> str:
        """An order may have several letters."""
        return f"{type(self).__name__} {self.letter_id}"

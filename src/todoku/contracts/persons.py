"""Define the event that a person was erased."""

from typing import ClassVar

from todoku.events import ErasureEvent


class PersonErasedEvent(ErasureEvent, frozen=True, kw_only=True, rename="camel"):
    """Orders has erased a person; the others erase what they know about the orders."""

    subject: ClassVar[str] = "orders.person_erased"
    publisher: ClassVar[str] = "orders"

"""The base class of the built-in events: each is about one order."""

from typing import ClassVar

from todoku.events import Event

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer every JSON reader keeps exact; money and its sums stay at or below it."""


class OrderEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """A fact about one order."""

    key_field: ClassVar[str] = "order_id"

    order_id: str

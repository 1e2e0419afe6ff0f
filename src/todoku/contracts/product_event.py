"""The base class of the built-in events that are about one product."""

from typing import ClassVar

from todoku.events import Event


class ProductEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """A fact about one product."""

    key_field: ClassVar[str] = "product_id"

    product_id: str

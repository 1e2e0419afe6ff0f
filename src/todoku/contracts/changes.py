"""Define what the events about a change of an order have in common. A change takes pieces back from it."""

import msgspec

from todoku.contracts.order_event import OrderEvent


class CancelledItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A number of pieces of one product that are to be cancelled."""

    product_id: str
    quantity: int


class ChangeEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """Something about the change `change_id` of an order: these `items` are to be cancelled.

    `whole` says that nothing of the order is left without them. All of these events have all of this,
    so that any of them may arrive first.
    """

    change_id: str
    items: tuple[CancelledItem, ...]
    whole: bool

    @property
    def fact(self) -> str:
        """Return the name of the fact: an order may have several changes."""
        return f"{type(self).__name__} {self.change_id}"

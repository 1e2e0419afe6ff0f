"""Define the events that the inventory service publishes about the stock of one product."""

from typing import Annotated, ClassVar

from todoku.contracts.product_event import ProductEvent
from todoku.events import Personal


class StockAdjustedEvent(ProductEvent, frozen=True, kw_only=True, rename="camel"):
    """The stock on hand changed by `quantity` pieces, positive or negative, and not by an order.

    `kind` is `RESTOCK` or `CORRECTION`; later versions may add others. `code` is the reason as a code, such
    as `DELIVERY`, `COUNT` or `DAMAGE`: an open set. `reason` is the reason in words, and `by` is who adjusted
    it; both are None if they are unknown.
    """

    subject: ClassVar[str] = "inventory.stock_adjusted"
    publisher: ClassVar[str] = "inventory"

    adjustment_id: str
    quantity: int
    kind: str
    code: str = ""
    reason: str | None = None
    by: Annotated[str | None, Personal] = None

    @property
    def fact(self) -> str:
        """Return the name of the fact: a product is adjusted many times."""
        return f"{type(self).__name__} {self.adjustment_id}"


class LowStockThresholdChangedEvent(ProductEvent, frozen=True, kw_only=True, rename="camel"):
    """A product is low from now on when `threshold` pieces or fewer are available; None for never.

    `version` grows with each change of the threshold: of two events, the one with the higher version counts.
    """

    subject: ClassVar[str] = "inventory.low_stock_threshold_changed"
    publisher: ClassVar[str] = "inventory"

    change_id: str
    version: int
    threshold: int | None = None

    @property
    def fact(self) -> str:
        """Return the name of the fact: a threshold is changed many times."""
        return f"{type(self).__name__} {self.change_id}"


class StockLowEvent(ProductEvent, frozen=True, kw_only=True, rename="camel"):
    """The available pieces of a product have fallen to its `threshold` or below.

    It is published once until more are available again. `cause_id` is the id of the order, the adjustment
    or the setting that made it fall.
    """

    subject: ClassVar[str] = "inventory.stock_low"
    publisher: ClassVar[str] = "inventory"

    cause_id: str
    threshold: int
    available_quantity: int

    @property
    def fact(self) -> str:
        """Return the name of the fact: a product may be low many times, each because of something else."""
        return f"{type(self).__name__} {self.cause_id}"

"""Define the query of a list of orders."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, UnsetType

from todoku.lifecycle import OVERDUE_SECONDS
from todoku.orders.domain import OrderStatus
from todoku.orders.listing import OrderFilter
from todoku.web.fields import ProductId, UserId
from todoku.web.paging import PageQuery

Statuses = Annotated[
    tuple[OrderStatus, ...],
    Meta(
        description="Only orders in this status; in one of several, if the parameter is repeated."
    ),
]
CreatedFrom = Annotated[
    datetime,
    Meta(
        tz=True,
        description="Only orders created at this time or later.",
        examples=["2030-01-02T03:04:05Z"],
    ),
]
CreatedTo = Annotated[
    datetime,
    Meta(
        tz=True,
        description="Only orders created before this time.",
        examples=["2030-01-02T03:04:05Z"],
    ),
]
Parked = Annotated[
    Literal["true"],
    Meta(description="Only orders that a dead letter of any service is about."),
]
Held = Annotated[Literal["true"], Meta(description="Only orders with a hold that is open.")]
Overdue = Annotated[
    Literal["true"],
    Meta(
        description="Only orders that have not ended although they were accepted over "
        f"{OVERDUE_SECONDS:g} seconds ago and are not held, or their deadline has passed."
    ),
]
Sort = Annotated[
    Literal["createdAt", "-createdAt"],
    Meta(description="`createdAt`: the oldest first; `-createdAt`: the newest first."),
]
Count = Annotated[
    Literal["true"],
    Meta(description="Also count the orders that match: `total`."),
]


class OrderQuery(PageQuery, frozen=True, kw_only=True):
    """Filters, sequence and page of a list of orders."""

    not_in_cursor: ClassVar = PageQuery.not_in_cursor | {"count"}

    user_id: UserId | UnsetType = UNSET
    status: Statuses = ()
    product_id: ProductId | UnsetType = UNSET
    created_from: CreatedFrom | UnsetType = UNSET
    created_to: CreatedTo | UnsetType = UNSET
    parked: Parked | UnsetType = UNSET
    held: Held | UnsetType = UNSET
    overdue: Overdue | UnsetType = UNSET
    sort: Sort = "-createdAt"
    count: Count | UnsetType = UNSET

    def filter(self, now: datetime) -> OrderFilter:
        """Return which orders are wanted."""
        return OrderFilter(
            statuses=tuple(dict.fromkeys(self.status)),
            user_id=self.user_id or None,
            product_id=self.product_id or None,
            created_from=self.created_from or None,
            created_to=self.created_to or None,
            parked=self.parked is not UNSET,
            held=self.held is not UNSET,
            overdue_at=None if self.overdue is UNSET else now,
        )

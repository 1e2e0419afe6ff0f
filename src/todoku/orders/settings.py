"""Define the settings of the orders service."""

from typing import Annotated

import msgspec
from msgspec import Meta

from todoku.orders.pricing import Prices, UnknownProducts
from todoku.settings import Seconds

DAY_SECONDS = 86_400


class OrdersSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an order costs, when it is late, and who may hold it."""

    prices: Annotated[
        Prices,
        Meta(
            description="Which prices are valid: those of the `catalogue`, so that an order with another one "
            "is refused, or those of the `request`, whatever they are."
        ),
    ] = "catalogue"
    unknown_products: Annotated[
        UnknownProducts,
        Meta(
            description="Whether to `accept` or to `refuse` an order with a product that is not in the "
            "catalogue. An accepted one ends as `CANCELLED_NO_STOCK`."
        ),
    ] = "accept"

    order_deadline_seconds: Annotated[
        float,
        Meta(
            ge=1,
            le=3_650 * DAY_SECONDS,
            description="How long an order may take before its cancellation is requested, in seconds; "
            "longer than parcels wait for the carrier.",
        ),
    ] = 7 * DAY_SECONDS
    order_deadline_grace_seconds: Annotated[
        Seconds,
        Meta(
            description="How long after a start no order is late yet and no hold expires, in seconds."
        ),
    ] = 60.0
    holders: Annotated[
        str,
        Meta(
            max_length=10_000,
            description="Who may hold orders, joined by commas: `fraud-review,address-check`; if it is "
            "empty, anybody.",
        ),
    ] = ""

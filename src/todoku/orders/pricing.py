"""Decide what the items of a new order cost: pure functions.

The catalogue says what a product costs; the price in a request is what the customer saw. Which of the two is
valid, and what becomes of products that are not in the catalogue, is a `PricePolicy`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import msgspec

from todoku.contracts import OrderedItem
from todoku.orders.catalogue import CatalogueEntry
from todoku.orders.domain import OrderError

DEFAULT_CURRENCY: Final = "JPY"
"""The currency of an order that names none, if the catalogue has none of its products."""

Prices = Literal["catalogue", "request"]
UnknownProducts = Literal["accept", "refuse"]


class UnpricedItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A quantity of one product, for the price of the catalogue."""

    product_id: str
    quantity: int

    @property
    def price(self) -> None:
        """Return None: the customer has named no price."""
        return


class PricePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the prices of the `catalogue` are valid, or those of the `request` that has any; and whether
    products that are not in the catalogue are accepted: such an order ends for lack of stock, unless
    inventory has the product by then."""

    prices: Prices = "catalogue"
    unknown_products: UnknownProducts = "accept"


class PriceDifference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product whose `price` in the catalogue is another than the `requested_price`, both in minor units
    of `currency`."""

    product_id: str
    requested_price: int
    price: int
    currency: str


class PriceChanged(OrderError):
    """Some prices are not those of the catalogue. The text is JSON, which survives as a kept answer."""

    def __init__(self, differences: Sequence[PriceDifference]) -> None:
        super().__init__(msgspec.json.encode(differences).decode())

    @property
    def differences(self) -> Sequence[PriceDifference]:
        """Return the products with both prices."""
        return msgspec.json.decode(str(self), type=list[PriceDifference])


class UnknownPrice(OrderError):
    """A product has no price in the request and is not in the catalogue."""


class ProductNotSold(OrderError):
    """A product is archived, or not in the catalogue where that is refused."""


class WrongCurrency(OrderError):
    """A product has a price in another currency than that of the order."""


def price_items(
    items: Sequence[OrderedItem | UnpricedItem],
    currency: str | None,
    catalogue: Mapping[str, CatalogueEntry],
    now: datetime,
    policy: PricePolicy,
) -> tuple[list[OrderedItem], str]:
    """Return the items with their prices, and the currency of the order. Raises `OrderError`."""
    trusted = policy.prices == "request"
    currency = currency or _currency(items, catalogue, trusted=trusted)
    priced: list[OrderedItem] = []
    differences: list[PriceDifference] = []
    for item in items:
        entry = catalogue.get(item.product_id)
        if entry is None:
            priced.append(_unknown(item, policy))
        elif trusted and isinstance(item, OrderedItem):
            priced.append(item)
        elif difference := _compare(item, entry, currency, now):
            differences.append(difference)
        elif isinstance(item, OrderedItem):
            priced.append(item)
        else:
            priced.append(
                OrderedItem(product_id=item.product_id, quantity=item.quantity, price=entry.price)
            )
    if differences:
        raise PriceChanged(differences)
    return priced, currency


def _currency(
    items: Sequence[OrderedItem | UnpricedItem],
    catalogue: Mapping[str, CatalogueEntry],
    *,
    trusted: bool,
) -> str:
    """Return the currency of the first product whose price is that of the catalogue."""
    for item in items:
        entry = catalogue.get(item.product_id)
        if entry is not None and not (trusted and isinstance(item, OrderedItem)):
            return entry.currency
    return DEFAULT_CURRENCY


def _unknown(item: OrderedItem | UnpricedItem, policy: PricePolicy) -> OrderedItem:
    """Return an item of a product that is not in the catalogue, if that is accepted."""
    if policy.unknown_products == "refuse":
        raise ProductNotSold(f"There is no product {item.product_id!r} in the catalogue.")
    if isinstance(item, OrderedItem):
        return item
    raise UnknownPrice(
        f"There is no product {item.product_id!r} in the catalogue, so its price is unknown: send the "
        "`price` that the customer saw."
    )


def _compare(
    item: OrderedItem | UnpricedItem, entry: CatalogueEntry, currency: str, now: datetime
) -> PriceDifference | None:
    """Return how the price of an item differs from that of the catalogue; None if it does not."""
    if entry.archived:
        raise ProductNotSold(f"Product {entry.product_id!r} is archived: it is sold no longer.")
    price = entry.price if item.price is None else item.price
    if (price, currency) == (entry.price, entry.currency) or entry.was(price, currency, now):
        return None
    if currency != entry.currency:
        raise WrongCurrency(
            f"The price of product {entry.product_id!r} is in {entry.currency}, and the order is in "
            f"{currency}: leave `currency` out, or send {entry.currency}. Products with prices in several "
            "currencies need an order for each."
        )
    return PriceDifference(
        product_id=entry.product_id, requested_price=price, price=entry.price, currency=currency
    )

"""Items of a new order with or without a price, and how a request with another price is refused."""

from collections.abc import Sequence
from typing import Final

from todoku.contracts import OrderedItem
from todoku.orders.pricing import (
    PriceChanged,
    ProductNotSold,
    UnknownPrice,
    UnpricedItem,
    WrongCurrency,
)
from todoku.orders.problems import PRICE_CHANGED, PRICE_UNKNOWN, PRODUCT_NOT_SOLD, WRONG_CURRENCY
from todoku.web import Body, Problem
from todoku.web.fields import Price, ProductId, Quantity
from todoku.web.operations import Refusals
from todoku.web.problems import InputError

NAMED_MAX: Final = 3
"""How many products the text of a problem names at most; `prices` has all."""

PRICE_REFUSALS: Final[Refusals] = {
    PriceChanged: PRICE_CHANGED,
    UnknownPrice: PRICE_UNKNOWN,
    ProductNotSold: PRODUCT_NOT_SOLD,
    WrongCurrency: WRONG_CURRENCY,
}


class NewItem(Body, frozen=True, kw_only=True, gc=False):
    """A quantity of one product. `price` is what the customer saw; left out, it is that of the catalogue."""

    product_id: ProductId
    quantity: Quantity
    price: Price | None = None


def wanted_item(item: NewItem) -> OrderedItem | UnpricedItem:
    """Return an item as the command has it."""
    if item.price is None:
        return UnpricedItem(product_id=item.product_id, quantity=item.quantity)
    return OrderedItem(product_id=item.product_id, quantity=item.quantity, price=item.price)


def price_changed(items: Sequence[NewItem], refusal: PriceChanged) -> Problem:
    """Return the problem that has both prices of each product, and where they are in the request."""
    differences = refusal.differences
    by_product = {each.product_id: each for each in differences}
    errors = [
        InputError(
            pointer=f"#/items/{number}/price",
            detail=f"The price is {different.price} {different.currency}, not {item.price}.",
        )
        for number, item in enumerate(items)
        if (different := by_product.get(item.product_id)) and item.price is not None
    ]
    named = "; ".join(
        f"product {each.product_id!r} costs {each.price} {each.currency}, not {each.requested_price}"
        for each in differences[:NAMED_MAX]
    )
    more = len(differences) - NAMED_MAX
    return Problem(
        PRICE_CHANGED,
        f"Nothing was ordered: {named}{f'; and {more} more' if more > 0 else ''}.",
        errors=errors,
        members={"prices": differences},
    )

"""An order as it is typed, and as the orders service wants it."""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from todoku.cli.answers import Product
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import say
from todoku.cli.words import money, printable

STDIN = "-"

ITEM = re.compile(r"(?P<product>[^:@\s]+)(:(?P<quantity>[0-9]{1,19}))?(@(?P<price>[0-9]{1,19}))?")
HOW_TO_WRITE_AN_ITEM = (
    "write PRODUCT:QUANTITY@PRICE, as in prod001:2@5000; without a quantity it is one piece,"
    " without a price the catalogue's"
)


class TypedItem(msgspec.Struct, frozen=True):
    """One item as it was typed. `price` is in minor units; None means the catalogue's."""

    product_id: str
    quantity: int
    price: int | None


def parse_item(text: str) -> TypedItem:
    """Read `PRODUCT[:QUANTITY][@PRICE]`. Raises `CommandFailed`."""
    match = ITEM.fullmatch(text)
    if match is None:
        raise CommandFailed(
            f"{printable(text)!r} is not an item: {HOW_TO_WRITE_AN_ITEM}.", exit_code=ExitCode.USAGE
        )
    price = match["price"]
    return TypedItem(match["product"], int(match["quantity"] or 1), int(price) if price else None)


def typed_order(
    user: str,
    items: Iterable[TypedItem],
    *,
    address: str | None,
    currency: str | None,
    look_up: Callable[[str], Product],
) -> bytes:
    """The body of an order of these items; `look_up` finds the price of those that have none.

    Raises `CommandFailed`.
    """
    items = tuple(items)
    catalogue = {
        product_id: look_up(product_id)
        for product_id in dict.fromkeys(item.product_id for item in items if item.price is None)
    }
    for product in catalogue.values():
        say(f"{product.id} costs {money(product.price, product.currency)}, says the inventory")
    order: dict[str, Any] = {
        "userId": user,
        "items": [
            {
                "productId": item.product_id,
                "quantity": item.quantity,
                "price": catalogue[item.product_id].price if item.price is None else item.price,
            }
            for item in items
        ],
    }
    found = _currency(currency, catalogue.values())
    if currency is None and found not in (None, DEFAULT_CURRENCY) and len(catalogue) < len(items):
        raise CommandFailed(
            f"the inventory's prices are in {found}; are those that you gave, too? Say so with"
            f" --currency {found}.",
            exit_code=ExitCode.USAGE,
        )
    optional = {"shippingAddress": address, "currency": found}
    return msgspec.json.encode(
        order | {name: value for name, value in optional.items() if value is not None}
    )


DEFAULT_CURRENCY = "JPY"
"""What the service takes an order to be in that names no currency."""


def _currency(wanted: str | None, products: Iterable[Product]) -> str | None:
    """The one currency of an order; None leaves it to the service."""
    found = {product.currency for product in products} | ({wanted} if wanted else set())
    if len(found) > 1:
        raise CommandFailed(
            f"an order has one currency, and these prices are in {' and '.join(sorted(found))}:"
            " place an order for each, or give the prices yourself, as in prod001:2@5000.",
            exit_code=ExitCode.USAGE,
        )
    return next(iter(found), None)


def written_order(source: str) -> bytes:
    """The body of an order that somebody wrote: a file, or `-` for stdin. Raises `CommandFailed`."""
    if source == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"the order in {printable(source)} cannot be read: {error.strerror}. Name a file of"
            " JSON, or - for stdin.",
            exit_code=ExitCode.USAGE,
        ) from error

"""Build the body of a new order from the command line or a file."""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.formatting import money, printable
from todoku.cli.output import note
from todoku.cli.responses import Product

STDIN = "-"

ITEM = re.compile(
    r"(?P<product>[^:@\s](?:[^:@]*[^:@\s])?)(:(?P<quantity>[0-9]{1,19}))?(@(?P<price>[0-9]{1,19}))?"
)
ITEM_FORMAT = (
    "use PRODUCT:QUANTITY@PRICE, as in prod001:2@5000; the default quantity is 1, the default"
    " price the inventory's"
)
PIECE_FORMAT = "use PRODUCT:QUANTITY, as in prod001:1; the default quantity is 1"


class TypedItem(msgspec.Struct, frozen=True):
    """One item of the command line. `price` is in minor units; None is the inventory's price."""

    product_id: str
    quantity: int
    price: int | None


def parse_item(text: str) -> TypedItem:
    """Read `PRODUCT[:QUANTITY][@PRICE]`. Raises `CommandFailed`."""
    match = ITEM.fullmatch(text)
    if match is None:
        raise _not_an_item(text, ITEM_FORMAT)
    price = match["price"]
    return TypedItem(match["product"], int(match["quantity"] or 1), int(price) if price else None)


def cancelled_piece(text: str) -> dict[str, object]:
    """Read `PRODUCT[:QUANTITY]`, as the body of a cancellation has it. Raises `CommandFailed`."""
    match = ITEM.fullmatch(text)
    if match is None:
        raise _not_an_item(text, PIECE_FORMAT)
    if match["price"]:
        raise CommandFailed(
            f"{printable(text)!r} has a price: {PIECE_FORMAT}.", exit_code=ExitCode.USAGE
        )
    return {"productId": match["product"], "quantity": int(match["quantity"] or 1)}


def _not_an_item(text: str, advice: str) -> CommandFailed:
    return CommandFailed(f"{printable(text)!r} is not an item: {advice}.", exit_code=ExitCode.USAGE)


def typed_order(
    user: str,
    items: Iterable[TypedItem],
    *,
    address: str | None,
    currency: str | None,
    deadline: str | None = None,
    on_shortage: str | None = None,
    look_up: Callable[[str], Product],
) -> bytes:
    """Return the body of an order of these items; `look_up` gets the products without a price.

    Raises `CommandFailed`.
    """
    items = tuple(items)
    catalogue = {
        product_id: look_up(product_id)
        for product_id in dict.fromkeys(item.product_id for item in items if item.price is None)
    }
    for product in catalogue.values():
        note(
            f"price of {product.id}: {money(product.price, product.currency)} (from the inventory)"
        )
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
            f"the inventory's prices are in {found}. If yours are too, add --currency {found}.",
            exit_code=ExitCode.USAGE,
        )
    optional = {
        "shippingAddress": address,
        "currency": found,
        "deadline": deadline,
        "onShortage": on_shortage,
    }
    return msgspec.json.encode(
        order | {name: value for name, value in optional.items() if value is not None}
    )


DEFAULT_CURRENCY = "JPY"
"""The service's default currency."""


def _currency(wanted: str | None, products: Iterable[Product]) -> str | None:
    """Return the currency of an order; None is the service's default. Raises `CommandFailed`."""
    found = {product.currency for product in products} | ({wanted} if wanted else set())
    if len(found) > 1:
        raise CommandFailed(
            f"an order has one currency, but these prices are in {' and '.join(sorted(found))}:"
            " place one order for each, or give the prices, as in prod001:2@5000.",
            exit_code=ExitCode.USAGE,
        )
    return next(iter(found), None)


def written_order(source: str) -> bytes:
    """Return the body of an order in a file, or from stdin for `-`. Raises `CommandFailed`."""
    if source == STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"cannot read the order in {printable(source)}: {error.strerror}. Give a JSON file,"
            " or - for stdin.",
            exit_code=ExitCode.USAGE,
        ) from error

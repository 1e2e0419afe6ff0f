"""Tell whether orders has the prices of the products at inventory."""

from typing import Final

import msgspec

from todoku.cli.client import PAGE_ITEMS_MAX, client
from todoku.cli.errors import CommandFailed
from todoku.settings import Settings

NOT_PERMITTED: Final = ("unauthenticated", "missing-scope")
SERVICES: Final = frozenset({"inventory", "orders"})


class _Product(msgspec.Struct):
    id: str
    version: int


class _Entry(msgspec.Struct, rename="camel"):
    product_id: str
    version: int


def has_arrived(settings: Settings) -> bool:
    """Return whether orders knows the first products of inventory as they are now; False if one of the two
    does not answer. Where the credential does not permit to look, nothing is waited for."""
    inventory, orders = (client(name, None, settings) for name in ("inventory", "orders"))
    try:
        products = [
            inventory.read(raw, _Product)
            for raw in inventory.list("/products", {}, items_max=PAGE_ITEMS_MAX)
        ]
        entries = (
            orders.read(raw, _Entry)
            for raw in orders.list("/catalogue", {}, items_max=PAGE_ITEMS_MAX)
        )
        known = {entry.product_id: entry.version for entry in entries}
    except CommandFailed as failure:
        return failure.problem in NOT_PERMITTED
    return all(known.get(product.id, 0) >= product.version for product in products)

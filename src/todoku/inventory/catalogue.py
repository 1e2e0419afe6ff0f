"""Define the demo catalogue: products to order right after the start."""

from typing import Final

from sqlalchemy import Connection

from todoku.inventory.domain import SetProduct
from todoku.inventory.store import list_products

DEMO_CATALOGUE: Final = tuple(
    SetProduct(product_id=product_id, name=name, price=price, currency="JPY", stock_quantity=stock)
    for product_id, name, stock, price in (
        ("prod001", "Super Keyboard", 10, 5000),
        ("prod002", "Ergonomic Mouse", 5, 3000),
        ("prod003", "4K Monitor", 3, 40000),
        ("keyboard", "キーボード", 10, 15000),
        ("mouse", "マウス", 5, 5000),
        ("monitor", "モニター", 3, 40000),
        ("headset", "ヘッドセット", 7, 12000),
    )
)


def is_empty(connection: Connection) -> bool:
    """Return whether the inventory has no products."""
    return not list_products(connection, after="", limit=1)

"""Define the demo catalogue: products to order right after the start."""

import asyncio
from typing import Final

import structlog
from sqlalchemy import Connection

from todoku.inventory.domain import SetProduct
from todoku.inventory.settings import InventorySettings
from todoku.inventory.store import list_products
from todoku.settings import Settings
from todoku.web import Backend

log = structlog.get_logger(__name__)

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


async def seed(backend: Backend, settings: Settings) -> None:
    """Put the demo catalogue into an empty inventory, if the settings ask for it."""
    if settings.own(InventorySettings).demo_catalogue and await backend.read(is_empty):
        await asyncio.gather(*(backend.process.execute(product) for product in DEMO_CATALOGUE))
        log.info("demo_catalogue_added", products=len(DEMO_CATALOGUE))


def is_empty(connection: Connection) -> bool:
    """Return whether the inventory has no products."""
    return not list_products(connection, after="", limit=1)

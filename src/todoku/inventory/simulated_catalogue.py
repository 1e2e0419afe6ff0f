"""Simulate a shop that changes its prices; check that versions grow, and that no change is overwritten."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Final

from todoku.inventory.domain import (
    ArchiveProduct,
    ProductChanged,
    PublishCatalogue,
    SetProduct,
    UnknownProduct,
)
from todoku.simulated import Scheduled, World

PRICES: Final = (0, 80, 90, 100, 110, 120)
CONDITIONAL_SHARE: Final = 0.5
ARCHIVED_SECONDS_MAX: Final = 4.0
FAMILY: Final = "catalogue"

_VERSIONS = "SELECT id, version FROM products ORDER BY id"


class SimulatedCatalogue:
    """Changes prices, two clerks at once at times; archives products for a while; publishes all again."""

    def __init__(self, world: World, products: Sequence[str]) -> None:
        self._world = world
        self._products = products
        self._versions: Mapping[str, int] = {}
        self._restores = 0

    def scheduled(self) -> Mapping[str, Scheduled]:
        """Return what happens at times."""
        return {
            "price-change": Scheduled(
                action=self._change_price, mean_seconds=(0.0, 3.0, 8.0), family=FAMILY
            ),
            "archiving": Scheduled(action=self._archive, mean_seconds=(0.0, 25.0), family=FAMILY),
            "publication": Scheduled(action=self._publish, mean_seconds=(0.0, 25.0), family=FAMILY),
        }

    def restored(self) -> None:
        """Forget the versions that the database has lost."""
        self._restores += 1
        self._versions = self._read()

    def check_commit(self) -> None:
        """Check I2: the version of a product only grows."""
        versions = self._read()
        for product_id, before in self._versions.items():
            if versions.get(product_id, 0) < before:
                problem = (
                    f"product {product_id} was version {before}, now {versions.get(product_id)}"
                )
                self._world.fail("I2", problem)
        self._versions = versions

    def _read(self) -> Mapping[str, int]:
        return dict(self._world.rows(_VERSIONS))

    async def _change_price(self, dice: Random) -> None:
        product_id = dice.choice(self._products)
        version = self._versions.get(product_id)
        if version is None:
            return
        if dice.random() >= CONDITIONAL_SHARE:
            await self._world.execute(_priced(product_id, dice.choice(PRICES), None))
            return
        restores, etag = self._restores, f'"{version}"'
        prices = [dice.choice(PRICES) for _ in range(2)]
        confirmed = await asyncio.gather(*(self._set(product_id, each, etag) for each in prices))
        if sum(confirmed) > 1 and restores == self._restores:
            problem = f"two changes of version {version} of {product_id} were confirmed"
            self._world.fail("I2", problem)

    async def _set(self, product_id: str, price: int, etag: str) -> bool:
        """Change the price of a version; return whether that was confirmed."""
        try:
            return await self._world.execute(_priced(product_id, price, etag)) is not None
        except ProductChanged:
            return False

    async def _archive(self, dice: Random) -> None:
        product_id = dice.choice(self._products)
        with suppress(UnknownProduct):
            await self._world.execute(ArchiveProduct(product_id=product_id))
            await asyncio.sleep(dice.uniform(0, ARCHIVED_SECONDS_MAX))
            await self._world.execute(ArchiveProduct(product_id=product_id, archived=False))

    async def _publish(self, dice: Random) -> None:
        await self._world.execute(PublishCatalogue())


def _priced(product_id: str, price: int, etag: str | None) -> SetProduct:
    if_match = None if etag is None else (etag,)
    return SetProduct(product_id=product_id, name=product_id, price=price, if_match=if_match)

"""The copy of inventory's catalogue: which version is valid, and how long a replaced price counts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import anyio
import httpx
import pytest

from todoku.contracts import ProductChangedEvent
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.catalogue import GRACE, REPLACED_MAX, CatalogueEntry, note_product
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from web.edge import client, running_together

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)


def changed(version: int, price: int, *, at: datetime = NOW, **more: Any) -> ProductChangedEvent:
    fields = {"name": "n", "currency": "JPY", **more}
    return ProductChangedEvent(
        product_id="p", version=version, price=price, changed_at=at, **fields
    )


def after(*events: ProductChangedEvent, at: datetime = NOW) -> CatalogueEntry:
    """Return what is known after these events, all of which arrive at a time."""
    entry: CatalogueEntry | None = None
    for event in events:
        entry, published = note_product(entry, event, at)
        assert published == []
    assert entry is not None
    return entry


def test_first_event_of_a_product_is_kept() -> None:
    entry = after(changed(7, 5000, archived=True, currency="EUR"))
    assert entry == CatalogueEntry(
        product_id="p",
        version=7,
        name="n",
        price=5000,
        currency="EUR",
        archived=True,
        changed_at=NOW,
    )


@pytest.mark.parametrize("sequence", list(permutations([1, 2, 3])))
def test_highest_version_wins_in_any_sequence(sequence: tuple[int, ...]) -> None:
    entry = after(*(changed(version, 100 * version) for version in sequence))
    assert (entry.version, entry.price) == (3, 300)


@pytest.mark.parametrize(
    ("seconds", "counts"), [(0, True), (9.9, True), (10, False), (3600, False), (-10, False)]
)
def test_replaced_price_counts_for_ten_seconds(seconds: float, counts: bool) -> None:
    entry = after(changed(1, 100), changed(2, 200))
    assert entry.was(100, "JPY", NOW + timedelta(seconds=seconds)) is counts
    assert not entry.was(100, "EUR", NOW)
    assert not entry.was(300, "JPY", NOW)


def test_each_of_several_replaced_prices_counts_for_its_time() -> None:
    entry, _ = note_product(after(changed(1, 100)), changed(2, 200), NOW)
    entry, _ = note_product(entry, changed(3, 300, at=NOW + 6 * SECOND), NOW + 6 * SECOND)
    later = NOW + 12 * SECOND
    assert [entry.was(price, "JPY", later) for price in (100, 200, 300)] == [False, True, False]


def test_price_counts_from_its_change_where_the_event_is_late() -> None:
    entry, _ = note_product(after(changed(1, 100)), changed(2, 200), NOW + 8 * SECOND)
    assert entry.was(100, "JPY", NOW + 9 * SECOND)
    assert not entry.was(100, "JPY", NOW + 11 * SECOND)


def test_price_counts_from_its_arrival_where_the_clock_of_inventory_is_ahead() -> None:
    ahead = changed(2, 200, at=NOW + timedelta(hours=1))
    entry = after(changed(1, 100), ahead)
    assert entry.was(100, "JPY", NOW + 9 * SECOND)
    assert not entry.was(100, "JPY", NOW + 11 * SECOND)


def test_change_without_another_price_replaces_none() -> None:
    assert after(changed(1, 100), changed(2, 100, archived=True)).replaced == ()


def test_replaced_prices_are_bounded() -> None:
    entry = after(*(changed(version, version) for version in range(1, 100)))
    assert len(entry.replaced) == REPLACED_MAX
    later = after(changed(1, 1), changed(2, 2))
    later, _ = note_product(later, changed(3, 3, at=NOW + GRACE), NOW + GRACE)
    assert [each.price for each in later.replaced] == [2]


@pytest.fixture
async def https() -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Clients of orders and inventory, connected by a broker."""
    services = [
        (orders_service(Settings()), orders_api),
        (inventory_service(Settings()), inventory_api),
    ]
    async with (
        running_together(services) as (orders, inventory),
        client(orders) as shop,
        client(inventory) as warehouse,
    ):
        yield shop, warehouse


@pytest.mark.anyio
async def test_change_at_inventory_arrives_in_the_copy(
    https: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    shop, warehouse = https
    product = (await warehouse.put("/products/p", json={"name": "n", "price": 5})).json()
    entry = await until_known(shop, product["version"])
    assert entry == {
        "productId": "p",
        "name": "n",
        "price": 5,
        "currency": "JPY",
        "archived": False,
        "version": product["version"],
        "changedAt": product["updatedAt"],
    }
    archived = (await warehouse.post("/products/p/archive")).json()
    assert (await until_known(shop, archived["version"]))["archived"] is True
    page = (await shop.get("/catalogue", params={"limit": 1})).json()
    assert [each["productId"] for each in page["items"]] == ["p"]
    unknown = await shop.get("/catalogue/ghost")
    assert (unknown.status_code, unknown.json()["type"]) == (404, "/problems/not-in-catalogue")


async def until_known(shop: httpx.AsyncClient, version: int) -> dict[str, Any]:
    """Return what orders knows of the product once it knows this version."""
    with anyio.fail_after(10):
        while True:
            reply = await shop.get("/catalogue/p")
            if reply.status_code == 200 and reply.json()["version"] == version:
                entry: dict[str, Any] = reply.json()
                return entry
            await anyio.sleep(0.01)

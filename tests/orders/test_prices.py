"""What an order costs: the price that the customer saw, that of the catalogue, and who is right."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import httpx
import msgspec
import pytest

from todoku.contracts import OrderedItem
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.catalogue import CatalogueEntry, ReplacedPrice
from todoku.orders.http import orders_api
from todoku.orders.placing import InvalidOrder, PlaceOrder, place_order
from todoku.orders.pricing import (
    PriceChanged,
    PriceDifference,
    PricePolicy,
    ProductNotSold,
    UnknownPrice,
    UnpricedItem,
    WrongCurrency,
    price_items,
)
from todoku.orders.service import orders_service
from todoku.system import system
from web.edge import client, running_together

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
STRICT: Final = PricePolicy(unknown_products="refuse")
TRUSTING: Final = PricePolicy(prices="request")
Item = OrderedItem | UnpricedItem


def known(price: int = 100, currency: str = "JPY", **more: Any) -> dict[str, CatalogueEntry]:
    """Return a catalogue with one product."""
    fields = {"archived": False, **more}
    entry = CatalogueEntry(
        product_id="p",
        version=1,
        name="n",
        price=price,
        currency=currency,
        changed_at=NOW,
        **fields,
    )
    return {"p": entry}


def replaced(price: int, currency: str = "JPY", *, seconds: float = 9) -> dict[str, Any]:
    """Return that this price was replaced some seconds ago."""
    return {"replaced": (ReplacedPrice(price, currency, NOW - timedelta(seconds=seconds)),)}


def item(price: int | None = 100, product_id: str = "p", quantity: int = 1) -> Item:
    if price is None:
        return UnpricedItem(product_id=product_id, quantity=quantity)
    return OrderedItem(product_id=product_id, quantity=quantity, price=price)


def prices(
    *items: Item,
    catalogue: dict[str, CatalogueEntry],
    currency: str | None = None,
    policy: PricePolicy = PricePolicy(),  # noqa: B008
) -> tuple[list[int], str]:
    priced, found = price_items(items, currency, catalogue, NOW, policy)
    assert all(isinstance(each, OrderedItem) for each in priced)
    return [each.price for each in priced], found


class TestCatalogueIsRight:
    @pytest.mark.parametrize("price", [100, None])
    def test_price_of_the_catalogue_is_taken_with_its_currency(self, price: int | None) -> None:
        catalogue = known(100, "EUR")
        assert prices(item(price), catalogue=catalogue) == ([100], "EUR")
        assert prices(item(price), catalogue=catalogue, currency="EUR") == ([100], "EUR")

    def test_another_price_is_refused_with_both(self) -> None:
        with pytest.raises(PriceChanged) as refusal:
            prices(item(99), catalogue=known(100))
        difference = PriceDifference(product_id="p", requested_price=99, price=100, currency="JPY")
        assert refusal.value.differences == [difference]

    @pytest.mark.parametrize(("seconds", "counts"), [(9.9, True), (10, False)])
    def test_price_that_was_just_replaced_still_counts(self, seconds: float, counts: bool) -> None:
        catalogue = known(100, **replaced(99, seconds=seconds))
        if counts:
            assert prices(item(99), catalogue=catalogue) == ([99], "JPY")
        else:
            with pytest.raises(PriceChanged):
                prices(item(99), catalogue=catalogue)

    def test_price_in_a_currency_that_was_just_replaced_still_counts(self) -> None:
        catalogue = known(100, "EUR", **replaced(99, "JPY"))
        assert prices(item(99), catalogue=catalogue, currency="JPY") == ([99], "JPY")

    def test_left_out_price_is_the_newest(self) -> None:
        assert prices(item(None), catalogue=known(100, **replaced(99))) == ([100], "JPY")

    @pytest.mark.parametrize("price", [100, None])
    def test_another_currency_is_refused(self, price: int | None) -> None:
        with pytest.raises(WrongCurrency, match=r"JPY.*EUR"):
            prices(item(price), catalogue=known(100), currency="EUR")

    @pytest.mark.parametrize("price", [100, None])
    def test_archived_product_is_refused(self, price: int | None) -> None:
        with pytest.raises(ProductNotSold, match="archived"):
            prices(item(price), catalogue=known(100, archived=True))

    def test_sample_costs_nothing(self) -> None:
        assert prices(item(0), catalogue=known(0)) == ([0], "JPY")
        with pytest.raises(PriceChanged):
            prices(item(0), catalogue=known(1))


class TestUnknownProducts:
    def test_its_price_is_taken_from_the_request(self) -> None:
        assert prices(item(7), catalogue={}) == ([7], "JPY")
        assert prices(item(7), catalogue={}, currency="EUR") == ([7], "EUR")
        assert prices(item(7, "q"), item(None), catalogue=known(100, "EUR")) == ([7, 100], "EUR")

    def test_without_a_price_it_is_refused(self) -> None:
        with pytest.raises(UnknownPrice, match="'p'"):
            prices(item(None), catalogue={})

    @pytest.mark.parametrize("price", [7, None])
    def test_it_is_refused_where_that_is_the_setting(self, price: int | None) -> None:
        with pytest.raises(ProductNotSold, match="'p'"):
            prices(item(price), catalogue={}, policy=STRICT)
        trusting = PricePolicy(prices="request", unknown_products="refuse")
        with pytest.raises(ProductNotSold, match="'p'"):
            prices(item(price), catalogue={}, policy=trusting)


class TestRequestIsRight:
    @pytest.mark.parametrize("more", [{}, {"archived": True}])
    def test_any_price_and_currency_is_taken(self, more: dict[str, Any]) -> None:
        catalogue = known(100, "EUR", **more)
        assert prices(item(7), catalogue=catalogue, policy=TRUSTING) == ([7], "JPY")
        assert prices(item(7), catalogue=catalogue, currency="USD", policy=TRUSTING) == ([7], "USD")

    def test_left_out_price_is_that_of_the_catalogue(self) -> None:
        assert prices(item(None), catalogue=known(100, "EUR"), policy=TRUSTING) == ([100], "EUR")
        with pytest.raises(WrongCurrency):
            prices(item(None), catalogue=known(100), currency="EUR", policy=TRUSTING)
        with pytest.raises(UnknownPrice):
            prices(item(None), catalogue={}, policy=TRUSTING)


def test_accepted_order_keeps_the_price_of_the_catalogue() -> None:
    items = (item(None, quantity=2), item(7, "q"))
    command = PlaceOrder(order_id="o", user_id="u", items=items)
    order, (event,) = place_order(None, command, NOW, catalogue=known(100, "EUR"))
    assert [each.price for each in order.items] == [100, 7]
    assert (order.total_amount, order.currency) == (207, "EUR")
    assert event.items == order.items  # type: ignore[attr-defined]


def test_order_that_was_placed_before_keeps_its_price() -> None:
    command = PlaceOrder(order_id="o", user_id="u", items=(item(100),))
    order, _ = place_order(None, command, NOW, catalogue=known(100))
    assert place_order(order, command, NOW, catalogue=known(200)) == (order, [])


def test_two_prices_of_one_product_are_refused_also_if_both_count() -> None:
    command = PlaceOrder(order_id="o", user_id="u", items=(item(99), item(None)))
    with pytest.raises(InvalidOrder, match="two prices"):
        place_order(None, command, NOW, catalogue=known(100, **replaced(99)))


def test_refusal_that_is_kept_as_text_has_both_prices() -> None:
    with pytest.raises(PriceChanged) as refusal:
        prices(item(99), catalogue=known(100))
    kept = PriceChanged.__new__(PriceChanged, str(refusal.value))
    assert kept.differences == refusal.value.differences


Https = tuple[httpx.AsyncClient, httpx.AsyncClient]


@asynccontextmanager
async def shop_and_warehouse(**values: Any) -> AsyncIterator[Https]:
    """Clients of orders and inventory, connected by a broker."""
    settings = system.settings(**values)
    services = [
        (orders_service(settings), orders_api),
        (inventory_service(settings), inventory_api),
    ]
    async with (
        running_together(services) as (orders, inventory),
        client(orders) as shop,
        client(inventory) as warehouse,
    ):
        yield shop, warehouse


async def put(https: Https, product_id: str, **product: Any) -> None:
    """Set a product, and wait until orders knows it."""
    shop, warehouse = https
    made = await warehouse.put(f"/products/{product_id}", json={"name": "n", **product})
    with anyio.fail_after(10):
        while True:
            reply = await shop.get(f"/catalogue/{product_id}")
            if reply.status_code == 200 and reply.json()["version"] == made.json()["version"]:
                return
            await anyio.sleep(0.01)


async def order(https: Https, *items: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"userId": "u", "items": [{"quantity": 1, **each} for each in items]}
    headers = more.pop("headers", {})
    return await https[0].post("/orders", json={**body, **more}, headers=headers)


def assert_problem(reply: httpx.Response, slug: str, status: int = 409) -> dict[str, Any]:
    assert (reply.status_code, reply.json()["type"]) == (status, f"/problems/{slug}")
    problem: dict[str, Any] = reply.json()
    return problem


@pytest.mark.anyio
class TestHttp:
    async def test_refusal_has_both_prices_and_says_where(self) -> None:
        async with shop_and_warehouse() as https:
            await put(https, "p", price=100, currency="EUR")
            items = [{"productId": "q", "price": 1}, {"productId": "p", "price": 99}]
            problem = assert_problem(await order(https, *items, currency="EUR"), "price-changed")
            assert problem["prices"] == [
                {"productId": "p", "requestedPrice": 99, "price": 100, "currency": "EUR"}
            ]
            assert [each["pointer"] for each in problem["errors"]] == ["#/items/1/price"]
            assert "'p' costs 100 EUR, not 99" in problem["detail"]
            assert (await https[0].get("/orders")).json()["items"] == []

    async def test_repeated_request_gets_the_same_refusal_although_the_price_fits_now(self) -> None:
        async with shop_and_warehouse() as https:
            await put(https, "p", price=100)
            key = {"Idempotency-Key": '"k"'}
            refused = await order(https, {"productId": "p", "price": 99}, headers=key)
            await put(https, "p", price=99)
            again = await order(https, {"productId": "p", "price": 99}, headers=key)
            assert again.status_code == refused.status_code == 409
            assert again.json() == refused.json()

    async def test_order_without_prices_pays_those_of_the_catalogue(self) -> None:
        async with shop_and_warehouse() as https:
            await put(https, "p", price=100, currency="EUR")
            placed = await order(https, {"productId": "p", "quantity": 3})
            assert placed.status_code == 201
            assert placed.json()["items"] == [{"productId": "p", "quantity": 3, "price": 100}]
            assert (placed.json()["totalAmount"], placed.json()["currency"]) == (300, "EUR")

    async def test_price_that_was_replaced_a_moment_ago_still_counts(self) -> None:
        async with shop_and_warehouse() as https:
            await put(https, "p", price=100)
            await put(https, "p", price=200)
            assert (await order(https, {"productId": "p", "price": 100})).status_code == 201
            assert (await order(https, {"productId": "p"})).json()["totalAmount"] == 200

    async def test_other_refusals(self) -> None:
        async with shop_and_warehouse() as https:
            await put(https, "p", price=100)
            euro = await order(https, {"productId": "p", "price": 100}, currency="EUR")
            assert_problem(euro, "wrong-currency")
            assert_problem(await order(https, {"productId": "ghost"}), "price-unknown")
            await https[1].post("/products/p/archive")
            await put(https, "q", price=1)  # Events of one publisher arrive in order here.
            assert_problem(await order(https, {"productId": "p"}), "product-not-sold")

    async def test_sample_is_ordered_for_nothing(self) -> None:
        async with shop_and_warehouse() as https:
            await put(https, "p", price=0, stockQuantity=1)
            placed = await order(https, {"productId": "p", "price": 0})
            assert (placed.status_code, placed.json()["totalAmount"]) == (201, 0)

    async def test_unknown_products_are_refused_where_that_is_set(self) -> None:
        async with shop_and_warehouse(unknown_products="refuse") as https:
            assert_problem(await order(https, {"productId": "p", "price": 1}), "product-not-sold")
            await put(https, "p", price=1)
            assert (await order(https, {"productId": "p", "price": 1})).status_code == 201

    async def test_any_price_is_accepted_where_that_is_set(self) -> None:
        async with shop_and_warehouse(prices="request") as https:
            await put(https, "p", price=100)
            placed = await order(https, {"productId": "p", "price": 1}, currency="EUR")
            assert (placed.status_code, placed.json()["totalAmount"]) == (201, 1)

    @pytest.mark.parametrize("values", [{}, {"prices": "request"}, {"unknown_products": "refuse"}])
    async def test_request_of_the_readme_works_with_every_setting(
        self, values: dict[str, Any]
    ) -> None:
        async with shop_and_warehouse(**values) as https:
            await put(https, "prod001", price=5000, stockQuantity=10)
            placed = await order(https, {"productId": "prod001", "quantity": 2, "price": 5000})
            assert (placed.status_code, placed.json()["totalAmount"]) == (201, 10_000)


def test_policies_have_the_values_of_the_settings() -> None:
    assert msgspec.json.encode(PricePolicy()) == (
        b'{"prices":"catalogue","unknown_products":"accept"}'
    )

"""The stock for its staff: restocks, corrections, the ledger, and what holds a product."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import pytest

from inventory.test_http import assert_problem
from todoku.contracts import (
    LowStockThresholdChangedEvent,
    OrderCreatedEvent,
    OrderedItem,
    ReservedItem,
    StockAdjustedEvent,
    StockLowEvent,
    StockReservedEvent,
)
from todoku.inventory import stock_lists
from todoku.inventory.domain import (
    CorrectStock,
    LedgerReason,
    Product,
    Restock,
    Stock,
    StockLost,
    correct_stock,
    replay_adjustment,
    replay_reservation,
    replay_threshold,
    reserve_stock,
    restock,
)
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.settings import Settings
from web.edge import client, running

pytestmark = pytest.mark.anyio

NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
KEYBOARD: Final = {"name": "Super Keyboard", "price": 5000, "stockQuantity": 10}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client of inventory, which has ten pieces of `prod001`."""
    service = inventory_service(Settings())
    async with running(service, inventory_api) as app, client(app) as http:
        await http.put("/products/prod001", json=KEYBOARD)
        yield http


async def correct(http: httpx.AsyncClient, quantity: int, **body: Any) -> httpx.Response:
    return await http.post("/products/prod001/correct", json={"quantity": quantity, **body})


async def ledger(http: httpx.AsyncClient, **query: Any) -> Any:
    return (await http.get("/products/prod001/ledger", params=query)).json()


async def test_correction_takes_pieces_out_and_says_why(http: httpx.AsyncClient) -> None:
    reply = await correct(http, -3, code="DAMAGE", reason="Fell down.")
    assert (reply.status_code, reply.json()["stockQuantity"]) == (200, 7)
    first, opening = (await ledger(http))["items"]
    assert (first["quantity"], first["kind"], first["code"]) == (-3, "CORRECTION", "DAMAGE")
    assert (first["reason"], first["by"], first["orderId"]) == ("Fell down.", None, None)
    assert (opening["quantity"], opening["kind"], opening["code"]) == (10, "OPENING", None)


async def test_count_that_found_nothing_wrong_is_entered(http: httpx.AsyncClient) -> None:
    assert (await correct(http, 0)).json()["stockQuantity"] == 10
    newest, _ = (await ledger(http))["items"]
    assert (newest["quantity"], newest["code"]) == (0, "COUNT")


async def test_restock_keeps_its_code(http: httpx.AsyncClient) -> None:
    delivery = {"quantity": 5, "code": "RETURN_OF_GOODS", "reason": "Parcel 7"}
    await http.post("/products/prod001/restock", json=delivery)
    assert (await ledger(http, limit=1))["items"][0]["code"] == "RETURN_OF_GOODS"


async def test_more_than_there_is_cannot_be_taken_out(http: httpx.AsyncClient) -> None:
    problem = assert_problem(await correct(http, -11), 409, "stock-in-use")
    assert "at most 10" in problem["detail"]
    assert_problem(await correct(http, 2**53 - 1), 409, "too-much-stock")
    assert len((await ledger(http))["items"]) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"quantity": "1"}, {"quantity": 1, "code": "broken"}, {"quantity": 1, "by": "mallory"}],
)
async def test_invalid_correction_is_refused(http: httpx.AsyncClient, body: Any) -> None:
    reply = await http.post("/products/prod001/correct", json=body)
    assert_problem(reply, 422, "invalid-body")


async def test_correction_that_is_repeated_with_its_key_is_made_once(
    http: httpx.AsyncClient,
) -> None:
    for _ in range(2):
        reply = await http.post(
            "/products/prod001/correct", json={"quantity": -1}, headers={"Idempotency-Key": "one"}
        )
        assert reply.json()["stockQuantity"] == 9


@pytest.mark.parametrize("name", ["correct", "ledger", "reservations"])
async def test_unknown_product_has_no_stock(http: httpx.AsyncClient, name: str) -> None:
    method = "POST" if name == "correct" else "GET"
    body = {"quantity": 1} if name == "correct" else None
    reply = await http.request(method, f"/products/ghost/{name}", json=body)
    assert_problem(reply, 404, "unknown-product")


async def test_ledger_is_listed_page_by_page(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if most of the rows that are read for a page are of other products."""
    monkeypatch.setattr(stock_lists, "ROWS_MAX", 3)
    await http.put("/products/other", json=KEYBOARD)
    for quantity in range(1, 6):
        await correct(http, quantity)
        await http.post("/products/other/correct", json={"quantity": 1})
    found, cursor = [], None
    while True:
        page = await ledger(http, limit=2, **({"cursor": cursor} if cursor else {}))
        found += [entry["quantity"] for entry in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert found == [5, 4, 3, 2, 1, 10]


async def test_cursor_of_another_list_is_refused(http: httpx.AsyncClient) -> None:
    await correct(http, 1)
    cursor = (await ledger(http, limit=1))["nextCursor"]
    reply = await http.get("/products/prod001/reservations", params={"cursor": cursor})
    assert_problem(reply, 400, "invalid-parameter")


async def test_no_order_holds_a_new_product(http: httpx.AsyncClient) -> None:
    reply = await http.get("/products/prod001/reservations")
    assert reply.json() == {"items": [], "nextCursor": None}


class TestReplay:
    def adjusted(self, quantity: int) -> StockAdjustedEvent:
        return StockAdjustedEvent(
            product_id="prod001", adjustment_id="a1", quantity=quantity, kind="CORRECTION"
        )

    def stock(self, reserved: int = 0, adjusted: frozenset[str] = frozenset()) -> Stock:
        product = Product(
            id="prod001",
            name="Super Keyboard",
            price=5000,
            currency="JPY",
            on_hand=10,
            reserved=reserved,
            created_at=NOW,
            updated_at=NOW,
        )
        return Stock(products={"prod001": product}, adjusted=adjusted)

    def test_lost_adjustment_is_entered(self) -> None:
        after, events = replay_adjustment(self.stock(), self.adjusted(-4), NOW)
        assert after.products["prod001"].on_hand == 6
        (entry,) = after.entries
        assert (entry.reason, entry.adjustment_id) == (LedgerReason.CORRECTION, "a1")
        assert events == []

    def test_known_adjustment_is_not_entered_again(self) -> None:
        before = self.stock(adjusted=frozenset({"a1"}))
        assert replay_adjustment(before, self.adjusted(-4), NOW) == (before, [])

    def test_correction_that_comes_before_a_release_waits_for_it(self) -> None:
        with pytest.raises(StockLost, match="8 of them reserved"):
            replay_adjustment(self.stock(reserved=8), self.adjusted(-4), NOW)

    def test_adjustment_of_a_lost_product_waits_for_it(self) -> None:
        with pytest.raises(StockLost, match="create it again"):
            replay_adjustment(Stock(products={}), self.adjusted(1), NOW)

    def test_reservation_whose_pieces_were_taken_out_before_its_replay_waits_for_a_restock(
        self,
    ) -> None:
        """A restored database may lack the reservation when the correction is made."""
        lost = StockReservedEvent(
            order_id="order", items=(ReservedItem(product_id="prod001", quantity=3),)
        )
        command = CorrectStock(product_id="prod001", adjustment_id="a1", quantity=-3)
        corrected, _ = correct_stock(self.stock(reserved=6), command, NOW)
        with pytest.raises(StockLost, match="3 requested, 1 available"):
            replay_reservation(corrected, lost, NOW)
        again = Restock(product_id="prod001", adjustment_id="a2", quantity=2)
        restocked, _ = restock(corrected, again, NOW)
        after, _ = replay_reservation(restocked, lost, NOW)
        assert after.products["prod001"].available == 0


class TestLowStock:
    def product(self, on_hand: int, threshold: int | None = 3) -> Product:
        return Product(
            id="prod001",
            name="Super Keyboard",
            price=5000,
            currency="JPY",
            on_hand=on_hand,
            reserved=0,
            created_at=NOW,
            updated_at=NOW,
            low_stock_threshold=threshold,
        )

    def corrected(self, product: Product, quantity: int) -> tuple[Product, list[int]]:
        """Correct the stock; return the product, and the available pieces that were told of as few."""
        command = CorrectStock(product_id="prod001", quantity=quantity, adjustment_id="a1")
        after, events = correct_stock(Stock(products={"prod001": product}), command, NOW)
        low = [each.available_quantity for each in events if isinstance(each, StockLowEvent)]
        return after.products["prod001"], low

    def test_low_stock_is_told_once_until_it_rises_above_the_threshold(self) -> None:
        product, told = self.product(5), []
        for quantity in (-1, -1, -1, +1, +1, -2):
            product, low = self.corrected(product, quantity)
            told.append(low)
        assert told == [[], [3], [], [], [], [2]]

    def test_product_without_threshold_is_never_low(self) -> None:
        assert self.corrected(self.product(5, threshold=None), -5)[1] == []

    def test_older_threshold_that_is_replayed_last_does_not_count(self) -> None:
        older, newer = [
            LowStockThresholdChangedEvent(
                product_id="prod001", change_id=f"c{version}", version=version, threshold=version
            )
            for version in (1, 2)
        ]
        stock = Stock(products={"prod001": self.product(5, threshold=None)})
        for event in (newer, older):
            stock, _ = replay_threshold(stock, event, NOW)
        assert stock.products["prod001"].low_stock_threshold == 2

    def test_order_that_takes_the_last_pieces_makes_a_product_low(self) -> None:
        event = OrderCreatedEvent(
            order_id="order",
            user_id="user",
            items=(OrderedItem(product_id="prod001", quantity=2, price=1),),
            total_amount=2,
        )
        _, events = reserve_stock(Stock(products={"prod001": self.product(5)}), event, NOW)
        assert [type(each) for each in events] == [StockReservedEvent, StockLowEvent]
        assert events[1].fact == "StockLowEvent order"


async def test_threshold_is_set_and_shown(http: httpx.AsyncClient) -> None:
    path = "/products/prod001/low-stock-threshold"
    assert (await http.put(path, json={"threshold": 4})).json()["lowStockThreshold"] == 4
    assert (await http.get("/products/prod001")).json()["lowStockThreshold"] == 4
    assert (await http.put(path, json={"threshold": None})).json()["lowStockThreshold"] is None
    assert_problem(await http.put(path, json={"threshold": -1}), 422, "invalid-body")
    ghost = await http.put("/products/ghost/low-stock-threshold", json={"threshold": 1})
    assert_problem(ghost, 404, "unknown-product")

"""Orders from the command line, with missing prices looked up."""

import json
from datetime import UTC, datetime

import pytest

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.new_order import TypedItem, cancelled_piece, parse_item, typed_order
from todoku.cli.responses import Product


def product(product_id: str, price: int, currency: str = "JPY") -> Product:
    return Product(
        id=product_id,
        name="a product",
        price=price,
        currency=currency,
        stock_quantity=1,
        reserved_quantity=0,
        available_quantity=1,
        updated_at=datetime(2026, 11, 22, tzinfo=UTC),
    )


def nobody(product_id: str) -> Product:
    raise AssertionError(f"{product_id} is looked up")


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("prod001:2@5000", TypedItem("prod001", 2, 5_000)),
        ("prod001:2", TypedItem("prod001", 2, None)),
        ("prod001@5000", TypedItem("prod001", 1, 5_000)),
        ("a.b_c-1", TypedItem("a.b_c-1", 1, None)),
        ("a b", TypedItem("a b", 1, None)),
        ("キーボード 1/2:3@5", TypedItem("キーボード 1/2", 3, 5)),
        ("prod001:0@0", TypedItem("prod001", 0, 0)),  # whether that is allowed, the service says
    ],
)
def test_item_has_product_quantity_and_price(text: str, item: TypedItem) -> None:
    assert parse_item(text) == item


@pytest.mark.parametrize(
    "text", ["", ":2", "@5", "a:b", "a:-1", "a:1.5", "a@", "a:1@2@3", "a:٣", "a ", "a:" + "9" * 20]
)
def test_invalid_item_is_rejected_with_format(text: str) -> None:
    with pytest.raises(CommandFailed, match="use PRODUCT:QUANTITY@PRICE") as failure:
        parse_item(text)

    assert failure.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("text", ["a:-1", "a:x", ":1", "a :1", "a:1@5", "a@5"])
def test_invalid_piece_to_cancel_is_refused_with_its_own_format(text: str) -> None:
    with pytest.raises(CommandFailed, match="use PRODUCT:QUANTITY, as in prod001:1;") as failure:
        cancelled_piece(text)

    assert failure.value.exit_code is ExitCode.USAGE
    assert "***" not in str(failure.value)


def test_deadline_is_sent_as_it_is_given() -> None:
    at = "2030-01-02T03:04:05+09:00"

    body = typed_order(
        "alice", [TypedItem("a", 2, 5)], address=None, currency=None, deadline=at, look_up=nobody
    )

    assert json.loads(body)["deadline"] == at


def test_complete_order_needs_no_lookup() -> None:
    body = typed_order("alice", [TypedItem("a", 2, 5)], address=None, currency=None, look_up=nobody)

    items = [{"productId": "a", "quantity": 2, "price": 5}]
    assert json.loads(body) == {"userId": "alice", "items": items}


def test_missing_prices_are_looked_up_once_per_product_and_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = []

    def look_up(product_id: str) -> Product:
        asked.append(product_id)
        return product(product_id, 599, "EUR")

    items = [TypedItem("a", 1, None), TypedItem("a", 2, None), TypedItem("b", 3, 7)]
    order = json.loads(typed_order("alice", items, address="東京", currency="EUR", look_up=look_up))

    assert asked == ["a"]
    assert [item["price"] for item in order["items"]] == [599, 599, 7]
    assert (order["currency"], order["shippingAddress"]) == ("EUR", "東京")
    assert capsys.readouterr().err == "todoku: price of a: 5.99 EUR (from the inventory)\n"


def test_given_price_does_not_take_currency_of_looked_up_price() -> None:
    items = [parse_item("a"), parse_item("b@7")]

    with pytest.raises(CommandFailed, match=r"in EUR\. If yours are too, add --currency EUR"):
        typed_order(
            "alice",
            items,
            address=None,
            currency=None,
            look_up=lambda name: product(name, 1, "EUR"),
        )


def test_prices_in_two_currencies_are_rejected() -> None:
    catalogue = {"a": product("a", 1, "EUR"), "b": product("b", 1, "JPY")}
    items = [parse_item("a"), parse_item("b")]

    with pytest.raises(CommandFailed, match="EUR and JPY"):
        typed_order("alice", items, address=None, currency=None, look_up=catalogue.__getitem__)
    with pytest.raises(CommandFailed, match="EUR and USD"):
        typed_order("alice", items[:1], address=None, currency="USD", look_up=catalogue.__getitem__)

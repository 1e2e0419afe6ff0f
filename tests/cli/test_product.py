"""`todoku product` with a running system."""

import pytest
from calling import Caller
from rich.cells import cell_len

from todoku.cli.exit_codes import ExitCode


def test_product_is_created_changed_and_restocked(todoku: Caller) -> None:
    made = todoku.ok(
        *("product", "set", "neu", "--name", "キーボード", "--price", "599"),
        *("--currency", "EUR", "--stock", "3", "--json"),
    ).object
    cheaper = todoku.ok("product", "set", "neu", "--price", "499", "--json").object
    restocked = todoku.ok("product", "restock", "neu", "7", "--reason", "入荷", "--json").object

    assert (made["name"], made["price"], made["stockQuantity"]) == ("キーボード", 599, 3)
    assert (cheaper["name"], cheaper["price"], cheaper["currency"]) == ("キーボード", 499, "EUR")
    assert restocked["stockQuantity"] == 10
    rows = [line.split() for line in todoku.ok("product", "show", "neu").out.splitlines()]
    assert ["price", "4.99", "EUR"] in rows
    assert ["available", "10"] in rows


def test_stock_is_corrected_and_its_ledger_says_why(todoku: Caller) -> None:
    todoku.ok("product", "set", "shelf", "--name", "棚", "--price", "1", "--stock", "5")
    words = ("product", "correct", "shelf", "-2", "--code", "DAMAGE", "--reason", "破損")
    assert todoku.ok(*words, "--json").object["stockQuantity"] == 3
    assert todoku("product", "correct", "shelf", "-4").code == ExitCode.REFUSED

    newest, opening = todoku.ok("product", "ledger", "shelf", "--json").lines
    assert (newest["quantity"], newest["code"], newest["reason"]) == (-2, "DAMAGE", "破損")
    assert opening["kind"] == "OPENING"
    assert "DAMAGE: 破損" in todoku.ok("product", "ledger", "shelf").out
    assert todoku.ok("product", "reservations", "shelf").out == ""


def test_product_id_may_be_any_text(todoku: Caller) -> None:
    product_id = "../キーボード 1/2?#%2F&:@"
    todoku.ok("product", "set", product_id, "--name", "n", "--price", "5", "--stock", "3")
    assert todoku.ok("product", "show", product_id, "--json").object["id"] == product_id
    archived = todoku.ok("product", "archive", product_id, "--json").object
    assert archived["archived"] is True
    assert (
        todoku.ok("product", "archive", product_id, "--undo", "--json").object["archived"] is False
    )


def test_new_product_needs_name_and_price(todoku: Caller) -> None:
    result = todoku("product", "set", "nowhere", "--price", "5")

    assert result.code == ExitCode.NOT_FOUND
    assert "to create it, give both --name and --price" in result.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("set", "prod001", "--stock", "5"), ExitCode.REFUSED),
        (("set", "a ", "--name", "x", "--price", "5"), ExitCode.REFUSED),
        (("set", "x", "--name", "x", "--price", "5", "--currency", "ZZZ"), ExitCode.REFUSED),
        (("set", "..", "--name", "x", "--price", "5"), ExitCode.USAGE),
        (("show", ""), ExitCode.USAGE),
        (("restock", "prod001", "0"), ExitCode.REFUSED),
        (("restock", "prod001", "many"), ExitCode.USAGE),
        (("restock", "nowhere", "1"), ExitCode.NOT_FOUND),
        (("show", "nowhere"), ExitCode.NOT_FOUND),
    ],
)
def test_rejected_command_prints_no_data(
    words: tuple[str, ...], code: ExitCode, todoku: Caller
) -> None:
    result = todoku("product", *words)

    assert result.code == code
    assert result.out == ""
    assert "Traceback" not in result.err


def test_product_list_fits_eighty_columns_with_wide_names(todoku: Caller) -> None:
    name = "世界一打ちやすい日本製の静音メカニカルキーボード" * 4
    todoku.ok("product", "set", "wide", "--name", name, "--price", "15000", "--stock", "1")

    rows = todoku("product", "list", COLUMNS="80").out.splitlines()

    assert rows[0].split() == ["id", "name", "price", "stock", "reserved", "available"]
    assert max(map(cell_len, rows)) <= 80
    assert name in todoku.ok("product", "list").out
    assert "wide" in [product["id"] for product in todoku.ok("product", "list", "--json").lines]

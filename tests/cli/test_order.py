"""`todoku order` against a running Todoku."""

import json
import re
from itertools import islice

import pytest
from calling import Caller, Said
from rich.cells import cell_len

from todoku.cli.exit_codes import ExitCode

ENDED = (ExitCode.OK, ExitCode.SHIPMENT_FAILED)
TRIES_MAX = 60
"""The carrier takes every second parcel: so many of one kind in a row do not happen."""


def placed(todoku: Caller, *words: str) -> str:
    """The id of an order that was just placed."""
    order_id: str = todoku.ok("order", "place", *words, "--json").object["id"]
    return order_id


def watched(todoku: Caller, ending: ExitCode) -> Said:
    """An order that was placed and watched until it ended like this."""
    words = ("order", "place", "--user", "alice", "plenty:2@5000", "--watch", "--json")
    for said in islice(iter(lambda: todoku(*words), None), TRIES_MAX):
        assert said.code in ENDED, said
        if said.code == ending:
            return said
    raise AssertionError(f"no order ended like {ending!r}")


def test_an_order_is_placed_with_prices_from_the_inventory(todoku: Caller) -> None:
    said = todoku.ok("order", "place", "--user", "山田", "plenty:3", "--address", "東京", "--json")

    order = said.object
    assert (order["userId"], order["totalAmount"], order["shippingAddress"]) == ("山田", 15, "東京")
    assert said.err == "todoku: plenty costs 5 JPY, says the inventory\n"


def test_an_order_is_placed_from_a_file_and_from_stdin(todoku: Caller) -> None:
    order = json.dumps(
        {"userId": "bob", "items": [{"productId": "plenty", "quantity": 1, "price": 7}]}
    )
    (todoku.folder / "order.json").write_text(order)

    from_file = todoku.ok("order", "place", "--from", "order.json", "--json").object
    from_stdin = todoku.ok("order", "place", "--from", "-", "--json", stdin=order).object

    assert from_file["totalAmount"] == from_stdin["totalAmount"] == 7
    assert from_file["id"] != from_stdin["id"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("plenty",),
        ("--user", "alice"),
        ("--user", "alice", "--from", "order.json"),
        ("--from", "no-such-file"),
        ("--user", "alice", "plenty:two"),
    ],
)
def test_an_order_that_is_not_all_there_is_a_usage_error(
    words: tuple[str, ...], todoku: Caller
) -> None:
    said = todoku("order", "place", *words)

    assert said.code == ExitCode.USAGE
    assert said.err.startswith("todoku: ")
    assert said.out == ""


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--user", "alice", "plenty:0@5"), "#/items/0/quantity: Must be at least 1."),
        (("--user", "a" * 200, "plenty@5"), "#/userId: Must have at most 128 characters."),
        (("--user", "alice", "plenty@5", "plenty@6"), "has two prices in this order"),
    ],
)
def test_what_the_service_refuses_is_told_with_its_place(
    words: tuple[str, ...], where: str, todoku: Caller
) -> None:
    said = todoku("order", "place", *words)

    assert said.code == ExitCode.REFUSED
    assert where in said.err
    assert "/problems/invalid-" in said.err


def test_a_price_for_an_unknown_product_is_asked_of_the_person(todoku: Caller) -> None:
    said = todoku("order", "place", "--user", "alice", "nowhere")

    assert said.code == ExitCode.NOT_FOUND
    assert "nowhere:1@5000" in said.err


def test_an_order_that_is_shipped_is_watched_to_its_end(todoku: Caller) -> None:
    events = watched(todoku, ExitCode.OK).lines

    assert [event["type"] for event in events] == [
        "OrderCreatedEvent",
        "StockReservedEvent",
        "ShipmentInitiatedEvent",
        "ShipmentCompletedEvent",
    ]
    assert events[-1]["status"] == "COMPLETED"


def test_an_order_whose_shipment_fails_shows_what_is_undone(todoku: Caller) -> None:
    event = watched(todoku, ExitCode.SHIPMENT_FAILED).lines[-1]

    said = todoku("order", "watch", event["data"]["orderId"])

    assert said.code == ExitCode.SHIPMENT_FAILED
    assert "ShipmentFailedEvent         SHIPMENT_FAILED\n" in said.out
    assert "compensation: inventory releases plenty ×2\n" in said.out
    assert said.err == ""


def test_an_order_without_stock_says_what_was_missing(todoku: Caller) -> None:
    said = todoku("order", "place", "--user", "alice", "prod003:4000000@1", "--watch")

    assert said.code == ExitCode.NO_STOCK
    assert "prod003: 4,000,000 wanted, 3 available" in said.out
    assert re.fullmatch(r"todoku: order \S+ is placed\n", said.err)


def test_an_order_is_shown_with_its_items(todoku: Caller) -> None:
    order_id = placed(todoku, "--user", "alice", "plenty:2@1500", "--address", "東京都")

    said = todoku.ok("order", "show", order_id)

    rows = [line.split() for line in said.out.splitlines()]
    assert ["id", order_id] in rows
    assert ["address", "東京都"] in rows
    assert ["plenty", "2", "1,500", "JPY", "3,000", "JPY"] in rows


def test_orders_are_listed_by_user_and_status_newest_first(todoku: Caller) -> None:
    words = ("--user", "太郎", "prod003:9000@1")
    ids = [placed(todoku, *words) for _ in range(3)]
    for order_id in ids:
        assert todoku("order", "watch", order_id).code == ExitCode.NO_STOCK

    query = ("order", "list", "--user", "太郎", "--status", "CANCELLED_NO_STOCK")
    everything = todoku.ok(*query, "--json").lines
    rows = todoku.ok(*query, "--limit", "2").out.splitlines()

    assert [order["id"] for order in everything] == ids[::-1]
    assert [row.split()[0] for row in rows] == ["id", *ids[:0:-1]]
    assert todoku.ok("order", "list", "--user", "太郎", "--status", "PENDING").out == ""


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lists_fit_the_terminal_also_with_wide_characters(columns: int, todoku: Caller) -> None:
    placed(todoku, "--user", "とても長い名前の人" * 8, "plenty@5")

    said = todoku("order", "list", "--limit", "3", COLUMNS=str(columns))

    assert max(map(cell_len, said.out.splitlines())) <= columns
    assert "…" in said.out


def test_in_a_narrow_terminal_the_ids_are_still_whole(todoku: Caller) -> None:
    order_id = placed(todoku, "--user", "alice", "plenty@5")
    products = [product["id"] for product in todoku.ok("product", "list", "--json").lines]

    assert order_id in todoku("order", "list", COLUMNS="40").out
    rows = todoku("product", "list", COLUMNS="40").out.splitlines()
    assert [row.split()[0] for row in rows] == ["id", *products]


@pytest.mark.parametrize("timeout", ["-1", "soon"])
def test_a_time_that_is_none_is_a_usage_error(timeout: str, todoku: Caller) -> None:
    said = todoku("order", "watch", "any", "--timeout", timeout)

    assert said.code == ExitCode.USAGE
    assert "--timeout" in said.err


def test_into_a_pipe_nothing_is_cut_off(todoku: Caller) -> None:
    user = "とても長い名前の人" * 8
    placed(todoku, "--user", user, "plenty@5")

    assert user in todoku.ok("order", "list", "--limit", "3").out


def test_an_unknown_order_is_not_found(todoku: Caller) -> None:
    for command in ("show", "watch"):
        said = todoku("order", command, "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e")

        assert said.code == ExitCode.NOT_FOUND
        assert said.out == ""


def test_at_a_terminal_the_next_command_is_suggested_and_colours_are_used(todoku: Caller) -> None:
    words = ("order", "place", "--user", "alice", "prod003:9000@1")

    at_terminal = todoku.at_terminal(*words, "--watch")
    without_colour = todoku.at_terminal(*words, "--watch", NO_COLOR="1")

    assert at_terminal.code == ExitCode.NO_STOCK
    assert "Next, " in at_terminal.out
    assert "\x1b[36morders" in at_terminal.out
    assert "\x1b[36m" not in without_colour.out
    assert "Next, " not in todoku(*words).err
    assert "Next, " not in todoku.at_terminal(*words, "--json").out


def test_a_reader_that_goes_away_is_no_error_to_talk_about(todoku: Caller) -> None:
    placed(todoku, "--user", "alice", "plenty@5")

    lists = (("order", "list"), ("order", "list", "--json"), ("product", "list"), ("config",))
    for words in (*lists, ("--help",), ("order", "--help"), ("--version",)):
        said = todoku.unread(*words)

        assert (said.code, said.err) == (ExitCode.OUTPUT_CLOSED, "")


def test_the_wrong_service_is_told_from_the_right_one(todoku: Caller) -> None:
    inventory_port = todoku.environment["TODOKU_INVENTORY_PORT"]

    said = todoku("order", "list", "--orders-port", inventory_port)

    assert said.code == ExitCode.UNREACHABLE
    assert "is not the orders service of Todoku" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("order", "list"),
        ("order", "show", "1"),
        ("order", "watch", "1"),
        ("order", "place", "--user", "alice", "plenty"),
        ("product", "list"),
        ("product", "show", "plenty"),
        ("product", "restock", "plenty", "1"),
        ("shipment", "list"),
        ("shipment", "show", "1"),
    ],
)
def test_where_nothing_runs_each_command_says_so(
    words: tuple[str, ...], todoku_alone: Caller
) -> None:
    ports = dict.fromkeys(
        ("TODOKU_ORDERS_PORT", "TODOKU_INVENTORY_PORT", "TODOKU_SHIPPING_PORT"), "1"
    )

    said = todoku_alone(*words, **ports)

    assert said.code == ExitCode.UNREACHABLE
    assert "Is `todoku up` running?" in said.err
    assert "Traceback" not in said.err
    assert said.out == ""

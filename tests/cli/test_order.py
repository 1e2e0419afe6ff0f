"""`todoku order` with a running system."""

import json
import re
from itertools import islice

import pytest
from calling import Caller, CommandResult
from rich.cells import cell_len
from scripted import Scripted, answering

from todoku.cli.exit_codes import ExitCode

ENDED = (ExitCode.OK, ExitCode.SHIPMENT_FAILED)
TRIES_MAX = 60
"""The carrier accepts every second parcel: a run of this many equal results does not happen."""


def placed(todoku: Caller, *words: str) -> str:
    """Place an order, and return its id."""
    order_id: str = todoku.ok("order", "place", *words, "--json").object["id"]
    return order_id


def watched(todoku: Caller, ending: ExitCode) -> CommandResult:
    """Place and watch orders until one ends with this status."""
    words = ("order", "place", "--user", "alice", "plenty:2@5", "--watch", "--json")
    for result in islice(iter(lambda: todoku(*words), None), TRIES_MAX):
        assert result.code in ENDED, result
        if result.code == ending:
            return result
    raise AssertionError(f"no order ended like {ending!r}")


def test_order_is_placed_with_prices_from_inventory(todoku: Caller) -> None:
    result = todoku.ok(
        "order", "place", "--user", "山田", "plenty:3", "--address", "東京", "--json"
    )

    order = result.object
    assert (order["userId"], order["totalAmount"], order["shippingAddress"]) == ("山田", 15, "東京")
    assert result.err == "todoku: price of plenty: 5 JPY (from the inventory)\n"


def test_order_is_placed_from_file_and_stdin(todoku: Caller) -> None:
    order = json.dumps(
        {"userId": "bob", "items": [{"productId": "plenty", "quantity": 1, "price": 5}]}
    )
    (todoku.folder / "order.json").write_text(order)

    from_file = todoku.ok("order", "place", "--from", "order.json", "--json").object
    from_stdin = todoku.ok("order", "place", "--from", "-", "--json", stdin=order).object

    assert from_file["totalAmount"] == from_stdin["totalAmount"] == 5
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
def test_incomplete_order_is_a_usage_error(words: tuple[str, ...], todoku: Caller) -> None:
    result = todoku("order", "place", *words)

    assert result.code == ExitCode.USAGE
    assert result.err.startswith("todoku: ")
    assert result.out == ""


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--user", "alice", "plenty:0@5"), "#/items/0/quantity: Must be at least 1."),
        (("--user", "a" * 200, "plenty@5"), "#/userId: Must have at most 128 characters."),
        (("--user", "alice", "unknown@5", "unknown@6"), "has two prices in this order"),
    ],
)
def test_rejected_order_shows_location_of_error(
    words: tuple[str, ...], where: str, todoku: Caller
) -> None:
    result = todoku("order", "place", *words)

    assert result.code == ExitCode.REFUSED
    assert where in result.err
    assert "/problems/invalid-" in result.err


def test_another_price_than_that_of_the_catalogue_is_refused_with_both(todoku: Caller) -> None:
    result = todoku("order", "place", "--user", "alice", "plenty@6")

    assert result.code == ExitCode.REFUSED
    assert "#/items/0/price: The price is 5 JPY, not 6." in result.err
    assert "/problems/price-changed" in result.err


def test_unknown_product_without_price_is_explained(todoku: Caller) -> None:
    result = todoku("order", "place", "--user", "alice", "nowhere")

    assert result.code == ExitCode.NOT_FOUND
    assert "nowhere:1@5000" in result.err


def test_shipped_order_is_watched_until_completed(todoku: Caller) -> None:
    events = watched(todoku, ExitCode.OK).lines

    assert [event["type"] for event in events] == [
        "OrderCreatedEvent",
        "StockReservedEvent",
        "ShipmentInitiatedEvent",
        "ShipmentCompletedEvent",
        "OrderCompletedEvent",
    ]
    assert events[-1]["status"] == "COMPLETED"


def test_failed_shipment_shows_compensation(todoku: Caller) -> None:
    event = watched(todoku, ExitCode.SHIPMENT_FAILED).lines[-1]

    result = todoku("order", "watch", event["data"]["orderId"])

    assert result.code == ExitCode.SHIPMENT_FAILED
    assert "ShipmentFailedEvent         SHIPMENT_FAILED\n" in result.out
    assert "compensation: inventory releases plenty ×2\n" in result.out
    assert result.err == ""


def test_order_that_has_ended_cannot_be_cancelled(todoku: Caller) -> None:
    order_id = watched(todoku, ExitCode.OK).lines[-1]["data"]["orderId"]

    result = todoku("order", "cancel", order_id, "--reason", "too late")

    assert result.code == ExitCode.REFUSED
    assert "it is COMPLETED" in result.err
    assert "/problems/too-late-to-cancel" in result.err


def test_order_that_is_cancelled_at_once_ends_one_way_or_the_other(todoku: Caller) -> None:
    order_id = placed(todoku, "--user", "alice", "plenty@5")

    result = todoku("order", "cancel", order_id, "--reason", "Ordered twice.", "--json")

    if result.code == ExitCode.REFUSED:
        return  # The carrier was quicker.
    assert result.object["cancellation"]["reason"] == "Ordered twice."
    watched_until = todoku("order", "watch", order_id)
    assert watched_until.code in (*ENDED, ExitCode.CANCELLED)
    shown = todoku.ok("order", "show", order_id).out
    assert "cancellation  requested" in shown


def test_unknown_order_cannot_be_cancelled(todoku: Caller) -> None:
    result = todoku("order", "cancel", "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e")

    assert result.code == ExitCode.NOT_FOUND


def test_order_without_stock_shows_missing_product(todoku: Caller) -> None:
    result = todoku("order", "place", "--user", "alice", "prod003:4000000@40000", "--watch")

    assert result.code == ExitCode.NO_STOCK
    assert "prod003: 4,000,000 requested, 3 available" in result.out
    assert re.fullmatch(r"todoku: order \S+ placed\n", result.err)


def test_order_is_shown_with_items(todoku: Caller) -> None:
    order_id = placed(todoku, "--user", "alice", "plenty:1000@5", "--address", "東京都")

    result = todoku.ok("order", "show", order_id)

    rows = [line.split() for line in result.out.splitlines()]
    assert ["id", order_id] in rows
    assert ["address", "東京都"] in rows
    assert ["plenty", "1,000", "5", "JPY", "5,000", "JPY"] in rows


def test_orders_are_listed_by_user_and_status_newest_first(todoku: Caller) -> None:
    words = ("--user", "太郎", "prod003:9000@40000")
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
def test_lists_fit_terminal_with_wide_characters(columns: int, todoku: Caller) -> None:
    placed(todoku, "--user", "とても長い名前の人" * 8, "plenty@5")

    result = todoku("order", "list", "--limit", "3", COLUMNS=str(columns))

    assert max(map(cell_len, result.out.splitlines())) <= columns
    assert "…" in result.out


def test_ids_are_whole_in_narrow_terminal(todoku: Caller) -> None:
    order_id = placed(todoku, "--user", "alice", "plenty@5")
    products = [product["id"] for product in todoku.ok("product", "list", "--json").lines]

    assert order_id in todoku("order", "list", COLUMNS="40").out
    rows = todoku("product", "list", COLUMNS="40").out.splitlines()
    assert [row.split()[0] for row in rows] == ["id", *products]


@pytest.mark.parametrize("timeout", ["-1", "soon"])
def test_invalid_timeout_is_a_usage_error(timeout: str, todoku: Caller) -> None:
    result = todoku("order", "watch", "any", "--timeout", timeout)

    assert result.code == ExitCode.USAGE
    assert "--timeout" in result.err


def test_nothing_is_truncated_in_pipe(todoku: Caller) -> None:
    user = "とても長い名前の人" * 8
    placed(todoku, "--user", user, "plenty@5")

    assert user in todoku.ok("order", "list", "--limit", "3").out


def test_unknown_order_exits_with_not_found(todoku: Caller) -> None:
    for command in ("show", "watch"):
        result = todoku("order", command, "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e")

        assert result.code == ExitCode.NOT_FOUND
        assert result.out == ""


def test_terminal_gets_next_command_and_colours(todoku: Caller) -> None:
    words = ("order", "place", "--user", "alice", "prod003:9000@40000")

    at_terminal = todoku.at_terminal(*words, "--watch")
    without_colour = todoku.at_terminal(*words, "--watch", NO_COLOR="1")

    assert at_terminal.code == ExitCode.NO_STOCK
    assert "Next, " in at_terminal.out
    assert "\x1b[36morders" in at_terminal.out
    assert "\x1b[36m" not in without_colour.out
    assert "Next, " not in todoku(*words).err
    assert "Next, " not in todoku.at_terminal(*words, "--json").out


def test_closed_pipe_gives_exit_code_without_message(todoku: Caller) -> None:
    placed(todoku, "--user", "alice", "plenty@5")

    lists = (("order", "list"), ("order", "list", "--json"), ("product", "list"), ("config",))
    for words in (*lists, ("--help",), ("order", "--help"), ("--version",)):
        result = todoku.unread(*words)

        assert (result.code, result.err) == (ExitCode.OUTPUT_CLOSED, "")


def test_wrong_service_at_address_is_detected(todoku: Caller) -> None:
    inventory_port = todoku.environment["TODOKU_INVENTORY_PORT"]

    result = todoku("order", "list", "--orders-port", inventory_port)

    assert result.code == ExitCode.UNREACHABLE
    assert "is not the orders service of Todoku" in result.err


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
def test_unreachable_service_is_reported_by_each_command(
    words: tuple[str, ...], todoku_alone: Caller
) -> None:
    ports = dict.fromkeys(
        ("TODOKU_ORDERS_PORT", "TODOKU_INVENTORY_PORT", "TODOKU_SHIPPING_PORT"), "1"
    )

    result = todoku_alone(*words, **ports)

    assert result.code == ExitCode.UNREACHABLE
    assert "Start it with `todoku up`" in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_orders_are_filtered_sorted_and_counted(todoku: Caller) -> None:
    first, second = (placed(todoku, "--user", "filters", "prod003:9000@40000") for _ in range(2))
    for order_id in (first, second):
        assert todoku("order", "watch", order_id).code == ExitCode.NO_STOCK
    created = todoku.ok("order", "show", second, "--json").object["createdAt"]
    mine = ("order", "list", "--user", "filters", "--product", "prod003")

    def listed(*words: str) -> list[str]:
        return [order["id"] for order in todoku.ok(*mine, *words, "--json").lines]

    statuses = ("--status", "PENDING", "--status", "CANCELLED_NO_STOCK")
    assert listed(*statuses, "--sort", "createdAt") == [first, second]
    assert listed("--created-from", created) == [second]
    assert listed("--created-to", created) == [first]
    assert listed("--parked") == listed("--overdue") == []
    assert todoku.ok(*mine, "--count").out.strip() == "2"
    assert todoku.ok(*mine, "--count", "--json").object == {"total": 2}


def test_order_with_a_cancelled_piece_shows_the_piece(todoku_alone: Caller) -> None:
    at = "2030-01-02T03:04:05Z"
    order = {
        "id": "1",
        "userId": "alice",
        "totalAmount": 25,
        "currency": "JPY",
        "shippingAddress": "",
        "status": "AWAITING_SHIPMENT",
        "reason": None,
        "shipmentId": None,
        "trackingNumber": None,
        "createdAt": at,
        "updatedAt": at,
        "items": [
            {"productId": "a", "quantity": 2, "price": 10},
            {"productId": "b", "quantity": 1, "price": 5},
        ],
        "lines": [{"productId": "a", "cancelled": 1}, {"productId": "b", "cancelled": 0}],
        "changes": [
            {
                "items": [{"productId": "a", "quantity": 1}],
                "whole": False,
                "by": "bob",
                "state": "confirmed",
                "reason": None,
                "requestedAt": at,
                "decidedAt": at,
                "refusal": None,
            }
        ],
    }

    with answering(Scripted(json.dumps(order).encode())) as server:
        shown = todoku_alone("order", "show", "1", "--url", server.url).out

    assert re.search(r"cancellation +a ×1 requested by bob 2030.*, confirmed 2030", shown)
    assert [line.split()[-1] for line in shown.splitlines()[-3:]] == ["cancelled", "1", "0"]

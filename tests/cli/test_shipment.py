"""`todoku shipment` with a running system."""

from calling import Caller
from rich.cells import cell_len

from todoku.cli.exit_codes import ExitCode

UNKNOWN = "0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e"


def test_shipment_of_order_is_listed_and_shown(todoku: Caller) -> None:
    events = todoku("order", "place", "--user", "a", "plenty:2@5", "--watch", "--json").lines
    order_id = events[0]["data"]["orderId"]

    (shipment,) = todoku.ok("shipment", "list", "--order", order_id, "--json").lines
    rows = todoku("shipment", "list", "--order", order_id, COLUMNS="80").out.splitlines()
    shown = todoku.ok("shipment", "show", shipment["id"]).out

    assert shipment["orderId"] == order_id
    assert rows[1].split()[:2] == [shipment["id"], shipment["status"]]
    assert max(map(cell_len, rows)) <= 80
    assert ["items", "plenty", "×2"] in [line.split() for line in shown.splitlines()]
    assert todoku.ok("shipment", "show", shipment["id"], "--json").object == shipment


def test_order_without_shipment_gives_empty_list(todoku: Caller) -> None:
    result = todoku.ok("shipment", "list", "--order", UNKNOWN)

    assert result.out == ""
    assert "no matching shipments" in result.err


def test_unknown_shipment_exits_with_not_found(todoku: Caller) -> None:
    assert todoku("shipment", "show", UNKNOWN).code == ExitCode.NOT_FOUND


def test_invalid_order_id_is_rejected(todoku: Caller) -> None:
    result = todoku("shipment", "list", "--order", "mine")

    assert result.code == ExitCode.REFUSED
    assert "orderId: Must be a UUID" in result.err

"""`todoku order hold` and `todoku order release`."""

import json

import msgspec
from calling import Caller
from scripted import Scripted, answering

from todoku.cli.exit_codes import ExitCode
from todoku.cli.order_holds import described
from todoku.cli.responses import OrderHold

ORDER_ID = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
HOLD = {
    "id": "0198c2f1-31c4-7e95-a8d2-7b0c4f6e1d23",
    "holder": "fraud-review",
    "reason": "New card.",
    "state": "requested",
    "by": None,
    "requestedAt": "2030-01-02T03:04:05Z",
    "expiresAt": "2030-01-03T03:04:05Z",
    "decidedAt": None,
    "refusal": None,
    "releasedAt": None,
    "releasedBy": None,
}


def test_order_is_held_and_the_release_is_suggested(todoku_alone: Caller) -> None:
    words = ("--holder", "fraud-review", "--reason", "New card.")
    with answering(Scripted(json.dumps(HOLD).encode(), 202)) as server:
        result = todoku_alone.ok(
            "order",
            "hold",
            ORDER_ID,
            *words,
            "--expires",
            "2030-01-03T03:04:05Z",
            "--url",
            server.url,
        )
    ((request, body),) = server.asked
    assert request == f"POST /orders/{ORDER_ID}/holds"
    assert json.loads(body) == {
        "holder": "fraud-review",
        "reason": "New card.",
        "expiresAt": "2030-01-03T03:04:05Z",
    }
    assert ["holder", "fraud-review"] in [line.split() for line in result.out.splitlines()]


def test_hold_is_released(todoku_alone: Caller) -> None:
    released = HOLD | {"state": "released", "releasedAt": "2030-01-02T04:00:00Z"}
    with answering(Scripted(json.dumps(released).encode(), 202)) as server:
        result = todoku_alone.ok("order", "release", ORDER_ID, HOLD["id"], "--url", server.url)
    assert server.asked == [(f"POST /orders/{ORDER_ID}/holds/{HOLD['id']}/release", b"")]
    assert ["state", "released"] in [line.split() for line in result.out.splitlines()]


def test_hold_of_an_unknown_order_is_refused(todoku: Caller) -> None:
    result = todoku("order", "hold", ORDER_ID, "--holder", "a", "--reason", "b")
    assert result.code == ExitCode.NOT_FOUND


def test_held_orders_are_listed_and_shown(todoku: Caller) -> None:
    item = {"productId": "plenty", "quantity": 1, "price": 5}
    hold = {"holder": "fraud-review", "reason": "New card."}
    order = json.dumps({"userId": "held", "items": [item], "holds": [hold]})
    placed = todoku.ok("order", "place", "--from", "-", "--json", stdin=order).object
    listed = todoku.ok("order", "list", "--held", "--user", "held", "--json").lines
    assert [each["id"] for each in listed] == [placed["id"]]
    assert "fraud-review" in todoku.ok("order", "show", placed["id"]).out
    todoku.ok("order", "release", placed["id"], placed["holds"][0]["id"])
    assert todoku.ok("order", "list", "--held", "--user", "held", "--json").lines == []


def test_hold_is_described_by_what_became_of_it() -> None:
    def text(**more: object) -> str:
        hold = json.loads(json.dumps(HOLD | {"expiresAt": None} | more))
        return described(msgspec.convert(hold, OrderHold))

    at = "2030-01-02T04:00:00Z"
    assert text().startswith("requested by fraud-review since 2030-01-02")
    assert text(state="refused", decidedAt=at, refusal="Too late.").endswith(
        "(New card.) Too late."
    )
    released = text(state="released", releasedAt=at, releasedBy="alice")
    assert released.startswith("of fraud-review, released by alice 2030-01-02")

"""Why an order waits, in each case that an operator meets."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from todoku.cli.causes import Cause
from todoku.cli.evidence import Evidence, PauseSeen, ServiceState
from todoku.cli.explanation import Explanation, explain
from todoku.cli.order_why import lines
from todoku.cli.responses import DeadLetter, Order, OrderHold, Parked, Shipment, Waiting
from todoku.contracts import OrderedItem
from todoku.diagnosis import wrong
from todoku.orders.holds import HoldState

NOW: Final = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
WORKS: Final = ServiceState(ahead_seconds=0.0)
MIB: Final = 2**20
ROOT: Final = Path(__file__).parents[2]


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def order(what: str | None, status: str = "AWAITING_SHIPMENT", **fields: Any) -> Order:
    waiting = None if what is None else Waiting(what=what, since=ago(minutes=10))
    values: dict[str, Any] = {
        "id": ORDER_ID,
        "user_id": "alice",
        "items": (OrderedItem(product_id="prod001", quantity=1, price=1),),
        "total_amount": 1,
        "currency": "JPY",
        "shipping_address": "",
        "status": status,
        "reason": None,
        "shipment_id": None,
        "tracking_number": None,
        "created_at": ago(minutes=10),
        "updated_at": ago(minutes=10),
        "waiting_for": waiting,
    }
    return Order(**{**values, **fields})


def shipment(status: str = "BOOKING", **fields: Any) -> Shipment:
    values: dict[str, Any] = {
        "id": "shipment",
        "order_id": ORDER_ID,
        "items": (),
        "shipping_address": "",
        "status": status,
        "attempts": 1,
        "tracking_number": None,
        "reason": None,
        "created_at": ago(minutes=9),
        "updated_at": ago(seconds=4),
    }
    return Shipment(**{**values, **fields})


def explained(
    found: Order, services: Mapping[str, ServiceState] | None = None, **evidence: Any
) -> Explanation:
    every = dict.fromkeys(("orders", "inventory", "shipping"), WORKS) | dict(services or {})
    return explain(Evidence(now=NOW, order=found, services=every, **evidence))


def codes(found: Explanation) -> list[str]:
    return [cause.code for cause in found.causes]


def first(found: Explanation) -> Cause:
    return found.causes[0]


def commands(found: Explanation) -> list[str]:
    return [action.command for cause in found.causes for action in cause.actions]


class TestNightOfAnOperator:
    """The seven cases of the operator's night."""

    def test_dead_letter_is_named_with_its_error_and_the_commands(self) -> None:
        parked = Parked(
            service="shipping",
            letter_id="letter",
            event_type="StockReservedEvent",
            error="ZeroDivisionError",
            since=ago(minutes=3),
        )
        letter = DeadLetter(
            id="letter",
            state="PARKED",
            order_id=ORDER_ID,
            event_type="StockReservedEvent",
            error="ZeroDivisionError: division by zero\n  in decide",
            group="5a0c2e91b7d4",
            attempts=5,
            parked_at=ago(minutes=3),
        )
        found = explained(order("manualAction", parked=(parked,)), letter=letter)
        assert codes(found) == ["dead-letter"]
        assert "ZeroDivisionError: division by zero" in first(found).text
        assert "shipping could not handle StockReservedEvent" in first(found).text
        assert commands(found) == [
            "todoku dead show letter --service shipping",
            "todoku dead retry letter --service shipping",
            "todoku dead retry --group 5a0c2e91b7d4",
        ]

    def test_raising_carrier_is_named_with_its_error_and_the_next_call(self) -> None:
        failing = shipment(
            attempts=3, last_error="KeyError: 'token'", next_attempt_at=NOW + timedelta(seconds=90)
        )
        found = explained(order("carrier"), shipment=failing)
        assert codes(found) == ["carrier-fails"]
        assert "3 calls failed, the last one with: KeyError: 'token'." in first(found).text
        assert "(in 1m)" in first(found).text
        assert (found.attempts, found.last_error) == (3, "KeyError: 'token'")
        assert found.next_attempt_at == NOW + timedelta(seconds=90)

    def test_slow_carrier_is_told_from_one_that_fails(self) -> None:
        shipping = ServiceState(
            ahead_seconds=0.0,
            metrics={
                "todoku_carrier_call_duration_seconds_sum": 74.0,
                "todoku_carrier_call_duration_seconds_count": 10.0,
                "todoku_carrier_call_limit_seconds": 12.0,
            },
        )
        found = explained(order("carrier"), {"shipping": shipping}, shipment=shipment())
        assert "given up after 12 s" in first(found).fix  # As the running service has it.
        assert codes(found) == ["carrier-slow"]
        assert "(4s ago) and has not answered" in first(found).text
        assert "took 7.4 s on average" in first(found).text

    def test_frozen_service_comes_before_what_the_order_waits_for(self) -> None:
        frozen = ServiceState(
            answers=False,
            wrong="8082, shipping does not respond (process 4711 is stopped)",
            fix="continue it with `kill -CONT 4711`, or wait until `todoku up` restarts it",
        )
        found = explained(order("carrier"), {"shipping": frozen})
        assert first(found).code == "service-does-not-answer"
        assert "process 4711 is stopped" in first(found).text
        assert "`kill -CONT 4711`" in first(found).fix

    def test_external_broker_that_is_down_is_named_with_its_address(self) -> None:
        down = wrong(
            "broker",
            "no NATS server answers at nats://broker.example:4222",
            fix="start it, or correct --nats-url; until then, orders are accepted but not processed",
        )
        found = explained(order("stock", "PENDING"), broker=down)
        assert first(found).code == "broker"
        assert "nats://broker.example:4222" in first(found).text
        assert first(found).fix.startswith("Start it, or correct --nats-url")

    def test_embedded_broker_that_was_killed_is_restarted_by_up(self) -> None:
        down = wrong(
            "broker",
            "no NATS server answers at nats://127.0.0.1:4222",
            fix="wait: `todoku up` (process 17) restarts it",
        )
        found = explained(order("stock", "PENDING"), broker=down)
        assert first(found).code == "broker"
        assert first(found).fix == "Wait: `todoku up` (process 17) restarts it."

    def test_full_disk_comes_before_the_service_that_it_stops(self) -> None:
        stopped = ServiceState(
            wrong="it is not ready: The database accepts no writes at present: see the log.",
            fix="see the log of orders",
            metrics={"todoku_disk_free_bytes": 2.0 * MIB},
        )
        found = explained(order("stock", "PENDING"), {"orders": stopped}, free_bytes=2 * MIB)
        assert codes(found)[:2] == ["disk-full", "service-not-ready"]
        assert "of orders is full: 2 MiB are free" in first(found).text


class TestFaultsOfTheTable:
    """The table in docs/reliability.md, as far as an order can tell of it."""

    @pytest.mark.parametrize(
        ("metrics", "code"),
        [
            ({"todoku_recovering": 1.0}, "recovering"),
            ({"todoku_recovery_dead_letters": 2.0}, "recovery-waits"),
            ({"todoku_broker_connected": 0.0}, "broker-not-connected"),
            ({"todoku_broker_configuration_problems": 1.0}, "broker-configuration"),
        ],
    )
    def test_service_that_starts_nothing_is_explained(
        self, metrics: Mapping[str, float], code: str
    ) -> None:
        state = ServiceState(ahead_seconds=0.0, metrics=metrics)
        assert first(explained(order("carrier"), {"shipping": state})).code == code

    def test_killed_service_is_named(self) -> None:
        state = ServiceState(answers=False, wrong="nothing listens at port 8081", fix="start it")
        found = explained(order("stock", "PENDING"), {"inventory": state})
        assert first(found).code == "service-does-not-answer"
        assert "inventory" in first(found).text

    def test_service_that_the_order_does_not_wait_for_is_not_named(self) -> None:
        state = ServiceState(answers=False, wrong="nothing listens at port 8081", fix="start it")
        found = explained(order("carrier"), {"inventory": state}, shipment=shipment())
        assert codes(found) == ["carrier-slow"]

    def test_database_that_does_not_answer_is_named(self) -> None:
        state = ServiceState(
            wrong="it is not ready: The database did not respond within 5 seconds.",
            metrics={"todoku_database_available": 0.0},
        )
        found = explained(order("stock", "PENDING"), {"inventory": state})
        assert first(found).code == "service-not-ready"

    def test_clock_that_is_off_is_named(self) -> None:
        state = ServiceState(ahead_seconds=-120.0)
        found = explained(order("carrier"), {"shipping": state}, shipment=shipment())
        assert codes(found) == ["clock", "carrier-slow"]
        assert "-120 s" in first(found).text

    def test_service_behind_many_messages_catches_up(self) -> None:
        state = ServiceState(ahead_seconds=0.0, metrics={"todoku_stream_lag_messages": 5_000.0})
        found = explained(order("stock", "PENDING"), {"inventory": state})
        assert codes(found) == ["lag"]
        assert "5,000 messages" in first(found).text

    def test_lost_event_is_sent_again_by_repair(self) -> None:
        pending = 'todoku_outbox_oldest_pending_seconds{subscriber="inventory"}'
        state = ServiceState(ahead_seconds=0.0, metrics={pending: 600.0})
        found = explained(order("stock", "PENDING"), {"orders": state})
        assert codes(found) == ["late"]
        assert "600 s old" in first(found).text
        assert "todoku verify --repair" in commands(found)


class TestNothingIsBroken:
    def test_order_that_has_ended_waits_for_nothing(self) -> None:
        found = explained(order(None, "CANCELLED_NO_STOCK", reason="Not enough stock."))
        assert codes(found) == ["ended"]
        assert "CANCELLED_NO_STOCK" in first(found).text

    def test_frozen_orders_service_is_named_for_an_order_that_has_ended(self) -> None:
        frozen = ServiceState(answers=False, wrong="orders does not respond", fix="continue it")
        found = explained(order(None, "COMPLETED"), {"orders": frozen}, from_database=True)
        assert codes(found) == ["ended", "as-stored", "service-does-not-answer"]

    def test_order_that_was_just_placed_is_in_progress(self) -> None:
        waiting = Waiting(what="stock", since=ago(seconds=1))
        found = explained(order("stock", "PENDING", waiting_for=waiting))
        assert codes(found) == ["in-progress"]

    def test_pause_is_named_with_the_command_that_ends_it(self) -> None:
        pause = PauseSeen(
            "shipping", "carrier", "carrier is paused since 03:00 by bob: Stocktaking."
        )
        found = explained(order("carrier"), shipment=shipment("INITIATED"), pauses=(pause,))
        assert first(found).code == "paused"
        assert first(found).text.endswith("by bob: Stocktaking. Nothing of it starts.")
        assert commands(found)[0] == "todoku resume carrier"

    def test_hold_is_named_with_the_command_that_releases_it(self) -> None:
        hold = OrderHold(
            id="hold",
            holder="fraud",
            reason="New card.",
            state=HoldState.CONFIRMED,
            requested_at=ago(hours=1),
            expires_at=None,
            decided_at=None,
            refusal=None,
            released_at=None,
            released_by=None,
        )
        found = explained(order("release", holds=(hold,)))
        assert codes(found) == ["held"]
        assert "fraud holds it since" in first(found).text
        assert commands(found) == [f"todoku order release {ORDER_ID} hold"]

    def test_missing_stock_is_named_with_its_product(self) -> None:
        found = explained(order("restock", "PENDING", deadline=NOW + timedelta(days=7)))
        assert codes(found) == ["out-of-stock"]
        assert "todoku product restock prod001 QUANTITY" in commands(found)

    def test_carrier_that_is_not_due_yet_is_no_fault(self) -> None:
        due_at = NOW + timedelta(seconds=30)
        found = explained(order("carrier"), shipment=shipment("INITIATED", next_attempt_at=due_at))
        assert codes(found) == ["carrier-not-due"]
        assert "(in 30s)" in first(found).text

    def test_what_a_newer_version_waits_for_is_named(self) -> None:
        assert "payment" in first(explained(order("payment"))).text


def test_explanation_is_printed_with_cures_and_commands() -> None:
    failing = shipment(attempts=1, last_error="TimeoutError", next_attempt_at=NOW)
    text = "\n".join(lines(explained(order("carrier"), shipment=failing)))
    assert text.startswith(f"{ORDER_ID} is AWAITING_SHIPMENT: it waits for the carrier")
    assert "1 attempt, last error: TimeoutError" in text
    assert "1 call failed" in text
    assert "    todoku shipment show shipment  # see the next call" in text


def test_explanation_as_json_has_the_causes() -> None:
    found = msgspec.json.decode(msgspec.json.encode(explained(order("carrier"))))
    assert found["orderId"] == ORDER_ID
    assert found["waitsFor"] == "carrier"
    assert set(found["causes"][0]) == {"code", "text", "fix", "actions"}


def test_every_code_is_documented_and_every_documented_one_exists() -> None:
    page = ROOT / "docs" / "how-to" / "why-an-order-waits.md"
    rows = re.findall(r"^\| (`.*`) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    documented = {code for row in rows for code in re.findall(r"`([\w-]+)`", row)}
    folder = ROOT / "src" / "todoku" / "cli"
    names = ("causes", "explanation", "faults", "reasons")
    source = "\n".join((folder / f"{name}.py").read_text() for name in names)
    assert documented == set(re.findall(r'"([a-z-]+)"', _codes(source)))


def _codes(source: str) -> str:
    """Return the lines of a source that give a cause its code."""
    return "\n".join(line for line in source.splitlines() if "code=" in line)


class TestNoise:
    def test_broken_service_hides_that_the_order_is_under_way(self) -> None:
        state = ServiceState(answers=False, wrong="nothing listens", fix="start it")
        assert codes(explained(order("stock", "PENDING"), {"inventory": state})) == [
            "service-does-not-answer"
        ]

    def test_time_of_a_call_under_way_is_no_next_attempt(self) -> None:
        claimed = shipment(next_attempt_at=NOW + timedelta(seconds=20))
        assert explained(order("carrier"), shipment=claimed).next_attempt_at is None

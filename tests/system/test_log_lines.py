"""What the log says of a problem: whom it concerns, and in which trace."""

from typing import Any, Final

from structlog.testing import capture_logs

from engine.virtual import START
from system.test_dead_letters import parked, reserved
from system.test_process import PRODUCT, Town, in_town, order_id, place
from todoku.contracts import encode, seal
from todoku.engine import add_trace
from todoku.engine.testing import until
from todoku.events import Context, trace_id_of
from todoku.shipping.domain import Accepted, Parcel

TRACE_ID: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
CONTEXT: Final = Context(traceparent=f"00-{TRACE_ID}-00f067aa0ba902b7-01")


def test_failed_and_parked_message_is_logged_with_order_event_and_trace() -> None:
    async def scenario(town: Town) -> None:
        await town.start("orders")
        envelope = seal(reserved(), START, CONTEXT)  # Orders has no such order.
        with capture_logs() as logs:
            town.publish(encode(envelope))
            await parked(town, "orders")
        found = [
            line
            for line in logs
            if line["event"] in ("message_failed_will_retry", "message_parked")
        ]
        assert len(found) > 1
        for line in found:
            assert line["key"] == order_id()
            assert line["event_id"] == envelope.id
            assert line["trace_id"] == TRACE_ID

    in_town(scenario)


def test_lines_that_a_carrier_logs_have_the_trace_of_the_order() -> None:
    async def scenario(town: Town) -> None:
        seen: list[dict[str, Any]] = []

        async def book(key: str, parcel: Parcel) -> Accepted:
            seen.append(dict(add_trace(None, "", {"event": "parcel_booked"})))
            return Accepted("T-1")

        town.courier.book = book  # type: ignore[method-assign,assignment]
        orders, inventory, _ = [await town.start(name) for name in town.services]
        await inventory.execute(PRODUCT)
        await orders.execute(place(1), CONTEXT)
        await until(lambda: len(seen) == 1)
        await orders.execute(place(2))
        await until(lambda: len(seen) == 2)
        assert [each.get("trace_id") for each in seen] == [TRACE_ID, None]

    in_town(scenario)


def test_malformed_traceparent_has_no_trace_id() -> None:
    assert trace_id_of(None) is None
    assert trace_id_of("nonsense") is None


def test_order_that_goes_well_leaves_no_line() -> None:
    async def scenario(town: Town) -> None:
        orders, inventory, _ = [await town.start(name) for name in town.services]
        await inventory.execute(PRODUCT)
        with capture_logs() as logs:
            await orders.execute(place(1), CONTEXT)
            await until(lambda: set(town.statuses().values()) == {"COMPLETED"})
        assert [line for line in logs if line["log_level"] != "debug"] == []

    in_town(scenario)


def test_failed_call_to_the_carrier_is_logged_with_order_and_trace() -> None:
    async def scenario(town: Town) -> None:
        town.courier.answers = [ValueError("down")]
        orders, inventory, _ = [await town.start(name) for name in town.services]
        await inventory.execute(PRODUCT)
        with capture_logs(processors=[add_trace]) as logs:
            await orders.execute(place(1), CONTEXT)
            await until(lambda: set(town.statuses().values()) == {"COMPLETED"})
        (line,) = [line for line in logs if line["event"] == "carrier_call_failed"]
        assert (line["order_id"], line["trace_id"]) == (order_id(), TRACE_ID)
        assert line["span_id"] == "00f067aa0ba902b7"

    in_town(scenario)

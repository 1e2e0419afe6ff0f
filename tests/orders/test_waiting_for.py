"""An open order tells what it waits for, since when and why."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from todoku.contracts import (
    EVENTS,
    ActivePause,
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancelledItem,
    Event,
    OrderedItem,
    OrderEvent,
    ShipmentCompletedEvent,
    ShipmentInitiatedEvent,
    ShippingPausesChangedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.database import Database, migrate
from todoku.engine import StateCache
from todoku.orders.cancellation import CancelOrder, cancel_order
from todoku.orders.domain import ORDER, Order, UnknownOrder
from todoku.orders.holds import Hold, HoldState
from todoku.orders.parking import ParkedMessage
from todoku.orders.pauses_elsewhere import ForeignPauses, PausesElsewhere, note_pauses
from todoku.orders.placing import PlaceOrder, place_order
from todoku.orders.service import EVENT_HANDLERS, PUBLISHES
from todoku.orders.store import OrdersStore
from todoku.orders.waiting_for import WaitingView, note_booking_failure, waiting_view

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
SHIPMENT_ID: Final = fact_id(ORDER_ID, "Shipment")
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)

PLACE: Final = PlaceOrder(
    order_id=ORDER_ID,
    user_id="user",
    items=(OrderedItem(product_id="a", quantity=2, price=5),),
    currency="JPY",
)
CHANGE_ID: Final = "0198c2f1-2a07-7d10-8f3b-5d1b6a9c0e42"
CANCEL: Final = CancelOrder(order_id=ORDER_ID, change_id=CHANGE_ID)
RESERVED: Final = StockReservedEvent(order_id=ORDER_ID, items=())
INITIATED: Final = ShipmentInitiatedEvent(order_id=ORDER_ID, shipment_id=SHIPMENT_ID)
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID, shipment_id=SHIPMENT_ID, tracking_number="t", items=()
)
TOO_LATE: Final = CancellationRefusedEvent(
    order_id=ORDER_ID,
    change_id=CHANGE_ID,
    items=(CancelledItem(product_id="a", quantity=2),),
    whole=True,
    reason="The carrier was already called.",
)


def failed(attempts: int = 1, error: str = "no answer") -> BookingAttemptFailedEvent:
    return BookingAttemptFailedEvent(
        order_id=ORDER_ID,
        shipment_id=SHIPMENT_ID,
        attempts=attempts,
        error=error,
        next_attempt_at=NOW + 2 * SECOND,
    )


def placed(*events: Event) -> Order:
    """Return an order after these events, of which one arrived each second."""
    order, _ = place_order(None, PLACE, NOW)
    for number, event in enumerate(events, start=1):
        order = after(order, event, NOW + number * SECOND)
    return order


def after(order: Order, event: Event, now: datetime = NOW) -> Order:
    decide: Any = EVENT_HANDLERS[type(event)]
    changed: Order = decide(order, event, now)[0]
    return changed


def waiting(order: Order, *parked: ParkedMessage) -> WaitingView | None:
    return waiting_view(order, parked)


@pytest.mark.parametrize("status", [status for status in ORDER.statuses if not status.terminal])
def test_every_open_status_names_what_it_waits_for(status: Any) -> None:
    assert status.stage.waits_for != "events", f"{status} needs `waits_for` in its row"


def test_new_order_waits_for_stock_since_it_was_placed() -> None:
    assert waiting(placed()) == WaitingView(what="stock", since=NOW)


def test_order_waits_for_the_carrier_since_its_stock_was_reserved() -> None:
    order = placed(RESERVED, INITIATED)
    assert waiting(order) == WaitingView(what="carrier", since=NOW + SECOND)


def test_order_waits_for_the_decision_about_its_cancellation_since_it_was_requested() -> None:
    order, _ = cancel_order(placed(RESERVED), CANCEL, NOW + 5 * SECOND)
    order = after(order, INITIATED, NOW + 6 * SECOND)
    assert waiting(order) == WaitingView(what="cancellation", since=NOW + 5 * SECOND)
    refused = after(order, TOO_LATE, NOW + 9 * SECOND)
    assert waiting(refused) == WaitingView(what="carrier", since=NOW + 9 * SECOND)


def test_failed_attempts_of_the_carrier_explain_the_order_and_change_nothing_else() -> None:
    before = placed(RESERVED, INITIATED)
    order = after(before, failed(3), NOW + 7 * SECOND)
    assert waiting(order) == WaitingView(
        what="carrier",
        since=NOW + SECOND,
        attempts=3,
        last_error="no answer",
        next_attempt_at=NOW + 2 * SECOND,
        reported_at=NOW + 7 * SECOND,
    )
    assert (order.status, order.updated_at) == (before.status, before.updated_at)


def test_failed_attempt_that_is_overtaken_is_shown_once_the_order_waits_for_the_carrier() -> None:
    early = placed(failed(2))
    assert waiting(early) == WaitingView(what="stock", since=NOW)
    order = after(early, RESERVED)
    found = waiting(order)
    assert found is not None
    assert found.attempts == 2
    assert after(order, failed(1, "older")) is order, "a later one arrived before"


def test_held_order_waits_for_its_release_once_its_stock_is_reserved() -> None:
    hold = Hold(
        id=CHANGE_ID, holder="fraud", reason="?", state=HoldState.CONFIRMED, requested_at=NOW
    )
    held = msgspec.structs.replace(placed(), holds=(hold,))
    assert waiting(held) == WaitingView(what="stock", since=NOW)
    held = after(held, RESERVED, NOW + SECOND)
    assert waiting(held) == WaitingView(what="release", since=NOW + SECOND)
    released = msgspec.structs.replace(hold, state=HoldState.RELEASED)
    free = msgspec.structs.replace(held, holds=(released,))
    assert waiting(free) == WaitingView(what="carrier", since=NOW + SECOND)


PAUSE: Final = ActivePause(
    id="pause", target="carrier", paused_at=NOW, paused_by="alice", reason="closed"
)


@pytest.mark.parametrize(
    ("target", "is_shown"),
    [
        ("service", True),
        ("carrier", True),
        ("product:a", True),
        ("product:b", False),
        ("product:", False),
        ("something new", False),
    ],
)
def test_order_that_waits_for_the_carrier_shows_the_pauses_that_stop_its_booking(
    target: str, is_shown: bool
) -> None:
    pause = msgspec.structs.replace(PAUSE, target=target)
    found = waiting_view(placed(RESERVED), [], {"shipping": [pause], "inventory": [PAUSE]})
    assert found is not None
    assert [(each.service, each.target, each.by) for each in found.pauses] == (
        [("shipping", target, "alice")] if is_shown else []
    )


def test_pause_of_a_product_whose_pieces_were_all_cancelled_is_not_shown() -> None:
    pause = msgspec.structs.replace(PAUSE, target="product:b")
    two = msgspec.structs.replace(
        PLACE, items=(*PLACE.items, OrderedItem(product_id="b", quantity=1, price=5))
    )
    order, _ = place_order(None, two, NOW)
    order = after(order, RESERVED)
    before = waiting_view(order, [], {"shipping": [pause]})
    assert before is not None
    assert len(before.pauses) == 1
    items = (CancelledItem(product_id="b", quantity=1),)
    wish = CancelOrder(order_id=ORDER_ID, change_id=CHANGE_ID, items=items)
    order, _ = cancel_order(order, wish, NOW)
    confirmed = CancellationConfirmedEvent(
        order_id=ORDER_ID, change_id=CHANGE_ID, items=items, whole=False
    )
    later = waiting_view(after(order, confirmed), [], {"shipping": [pause]})
    assert later is not None
    assert later.pauses == ()


def test_order_that_waits_for_a_restock_shows_the_pause_of_inventory() -> None:
    pauses = {"inventory": [PAUSE], "shipping": [PAUSE]}
    waits = msgspec.structs.replace(placed(), stock_awaited_at=NOW)
    found = waiting_view(waits, [], pauses)
    assert found is not None
    assert [each.service for each in found.pauses] == ["inventory"]
    at_once = waiting_view(placed(), [], pauses)
    assert at_once is not None
    assert at_once.pauses == (), "a paused inventory decides on messages"


def test_later_news_of_pauses_are_kept_whichever_arrives_first() -> None:
    begun = ShippingPausesChangedEvent(service="shipping", version=1, pauses=(PAUSE,))
    ended = ShippingPausesChangedEvent(service="shipping", version=2, pauses=())
    for news in ([begun, ended], [ended, begun]):
        state: PausesElsewhere | None = None
        for event in news:
            state, _ = note_pauses(state, event, NOW)
        assert state == PausesElsewhere(service="shipping", version=2, pauses=())


def test_news_of_the_pauses_of_another_service_are_refused() -> None:
    with pytest.raises(ForeignPauses, match="'fax'"):
        note_pauses(None, ShippingPausesChangedEvent(service="fax", version=9, pauses=()), NOW)


def test_order_that_has_ended_waits_for_nothing() -> None:
    ended = placed(RESERVED, INITIATED, failed(), COMPLETED)
    assert waiting(ended) is None
    assert after(ended, failed(9)) is ended, "late"


def test_failed_attempt_about_an_unknown_order_is_refused() -> None:
    with pytest.raises(UnknownOrder, match=ORDER_ID):
        note_booking_failure(None, failed(), NOW)


def test_order_with_a_parked_message_waits_for_manual_action() -> None:
    letter = ParkedMessage(
        service="shipping",
        letter_id="letter",
        order_id=ORDER_ID,
        message_type="StockReservedEvent",
        error="KeyError",
        parked_at=NOW + SECOND,
    )
    assert waiting(placed(RESERVED), letter) == WaitingView(
        what="manualAction", since=NOW + SECOND, service="shipping", letter_id="letter"
    )


def test_what_explains_an_order_is_stored() -> None:
    orders = [placed(), placed(RESERVED), placed(RESERVED, failed()), placed(failed(), COMPLETED)]
    with Database.in_memory() as database:
        migrate(database, "todoku.orders")
        for order in orders:
            with database.transaction() as connection:
                unit_of_work = OrdersStore().load(connection, [RESERVED], StateCache(0))
                unit_of_work.put(RESERVED, order)
                OrdersStore().save(connection, unit_of_work, NOW)
                assert (
                    OrdersStore().load(connection, [RESERVED], StateCache(0)).view(RESERVED)
                    == order
                )


@pytest.mark.parametrize(
    "event", [event for event in EVENTS.values() if issubclass(event, OrderEvent)]
)
def test_every_event_about_an_order_is_in_its_history(event: type[Event]) -> None:
    """Orders records what it publishes and what it subscribes to."""
    assert event in PUBLISHES or event in EVENT_HANDLERS

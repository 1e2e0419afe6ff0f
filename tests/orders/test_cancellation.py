"""Tests of the decisions about the cancellation of an order, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    OrderCancelledEvent,
    OrderedItem,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.orders.cancellation import (
    CANCELLED_ON_REQUEST,
    CancelOrder,
    TooLateToCancel,
    cancel_order,
    replay_request,
)
from todoku.orders.changes import Change, ChangeState
from todoku.orders.domain import ContradictoryEvent, Order, OrderStatus, UnknownOrder
from todoku.orders.placing import PlaceOrder, place_order
from todoku.orders.recovery import republish_order
from todoku.orders.service import orders_service
from todoku.settings import Settings

orders = orders_service(Settings())

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
CHANGE_ID: Final = "0198c2f1-2a07-7d10-8f3b-5d1b6a9c0e42"
OTHER_ID: Final = "0198c2f1-2a07-7d10-8f3b-000000000000"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
LATER_STILL: Final = LATER + timedelta(seconds=7)

ITEMS: Final = (
    CancelledItem(product_id="a", quantity=2),
    CancelledItem(product_id="b", quantity=1),
)
CHANGE: Final = {"order_id": ORDER_ID, "change_id": CHANGE_ID, "items": ITEMS, "whole": True}

RESERVED: Final = StockReservedEvent(
    order_id=ORDER_ID, items=(ReservedItem(product_id="a", quantity=2),)
)
NO_STOCK: Final = StockReservationFailedEvent(order_id=ORDER_ID, reason="none", failed_items=())
INITIATED: Final = ShipmentInitiatedEvent(order_id=ORDER_ID, shipment_id="s")
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID,
    shipment_id="s",
    tracking_number="t",
    items=(ShippedItem(product_id="a", quantity=2),),
)
CONFIRMED: Final = CancellationConfirmedEvent(**CHANGE)
REFUSED: Final = CancellationRefusedEvent(**CHANGE, reason="The carrier was already called.")
RELEASED: Final = StockReleasedEvent(**CHANGE, outcome="RELEASED")


def placed() -> Order:
    command = PlaceOrder(
        order_id=ORDER_ID,
        user_id="user123",
        items=(
            OrderedItem(product_id="a", quantity=2, price=5),
            OrderedItem(product_id="b", quantity=1, price=5),
        ),
        currency="JPY",
    )
    return place_order(None, command, NOW)[0]


def wish(change_id: str = CHANGE_ID, reason: str | None = "Ordered twice.") -> CancelOrder:
    return CancelOrder(order_id=ORDER_ID, change_id=change_id, reason=reason, by="user123")


def cancelling(order: Order | None = None) -> Order:
    return cancel_order(order or placed(), wish(), LATER)[0]


def handled(order: Order, *events: Event, now: datetime = LATER_STILL) -> Order:
    """Return the order after these events."""
    for event in events:
        after, _ = orders.event_handlers[type(event)](order, event, now)
        order = after
    return order


def cancellation(order: Order) -> Change:
    assert order.cancellation is not None
    return order.cancellation


class TestAsking:
    @pytest.mark.parametrize("events", [(), (RESERVED,), (RESERVED, INITIATED)])
    def test_open_order_is_cancelling_and_the_request_is_published(
        self, events: tuple[Event, ...]
    ) -> None:
        order, published = cancel_order(handled(placed(), *events), wish(), LATER)
        assert (order.status, order.updated_at) == (OrderStatus.CANCELLING, LATER)
        assert order.changes == (
            Change(
                id=CHANGE_ID,
                items=ITEMS,
                whole=True,
                state=ChangeState.REQUESTED,
                requested_at=LATER,
                reason="Ordered twice.",
                by="user123",
            ),
        )
        assert published == [
            CancellationRequestedEvent(**CHANGE, reason="Ordered twice.", requested_by="user123")
        ]

    def test_same_request_for_a_piece_is_executed_once(self) -> None:
        """After a commit whose result is unknown, the same command is executed again."""
        piece = CancelledItem(product_id="a", quantity=1)
        command = msgspec.structs.replace(wish(), items=(piece,))
        order, _ = cancel_order(placed(), command, LATER)

        assert cancel_order(order, command, LATER_STILL) == (order, [])

    @pytest.mark.parametrize("events", [(), (CONFIRMED,), (CONFIRMED, RELEASED), (NO_STOCK,)])
    def test_asking_again_has_the_same_answer_and_publishes_nothing(
        self, events: tuple[Event, ...]
    ) -> None:
        order = handled(cancelling(), *events)
        assert cancel_order(order, wish(OTHER_ID, "Another reason."), LATER_STILL) == (order, [])

    def test_unknown_order_is_refused(self) -> None:
        with pytest.raises(UnknownOrder, match=ORDER_ID):
            cancel_order(None, wish(), NOW)

    @pytest.mark.parametrize("event", [NO_STOCK, COMPLETED])
    def test_ended_order_is_too_late(self, event: Event) -> None:
        with pytest.raises(TooLateToCancel, match="has ended"):
            cancel_order(handled(placed(), event), wish(), LATER)

    @pytest.mark.parametrize("events", [(REFUSED,), (REFUSED, COMPLETED), (COMPLETED, REFUSED)])
    def test_order_whose_cancellation_was_refused_is_too_late(
        self, events: tuple[Event, ...]
    ) -> None:
        with pytest.raises(TooLateToCancel, match="carrier was already called"):
            cancel_order(handled(cancelling(), *events), wish(OTHER_ID), LATER_STILL)


class TestAnswers:
    def test_confirmation_waits_for_the_answer_of_inventory(self) -> None:
        order = handled(cancelling(), CONFIRMED)
        assert order.status is OrderStatus.CANCELLING
        assert cancellation(order).state is ChangeState.CONFIRMED
        assert cancellation(order).decided_at == LATER_STILL

    @pytest.mark.parametrize(
        ("reason", "expected"), [("Ordered twice.", "Ordered twice."), (None, CANCELLED_ON_REQUEST)]
    )
    def test_release_ends_the_order_and_publishes_it(
        self, reason: str | None, expected: str
    ) -> None:
        order, _ = cancel_order(placed(), wish(reason=reason), LATER)
        cancelled, published = orders.event_handlers[StockReleasedEvent](
            order, RELEASED, LATER_STILL
        )
        assert cancelled.status is OrderStatus.CANCELLED
        assert cancellation(cancelled).state is ChangeState.CONFIRMED, "the release implies it"
        assert published == [
            OrderCancelledEvent(
                order_id=ORDER_ID,
                user_id="user123",
                status="CANCELLED",
                reason=expected,
                items=order.items,
                total_amount=15,
                currency="JPY",
            )
        ]

    def test_refusal_leads_back_and_the_order_goes_on(self) -> None:
        order = handled(cancelling(), REFUSED)
        assert order.status is OrderStatus.AWAITING_SHIPMENT
        assert cancellation(order).state is ChangeState.REFUSED
        assert cancellation(order).refusal == "The carrier was already called."
        assert handled(order, COMPLETED).status is OrderStatus.COMPLETED

    def test_stock_refused_meanwhile_ends_the_order_as_such(self) -> None:
        order = handled(cancelling(), NO_STOCK, CONFIRMED)
        assert order.status is OrderStatus.CANCELLED_NO_STOCK
        assert cancellation(order).state is ChangeState.CONFIRMED

    @pytest.mark.parametrize(
        ("events", "event"),
        [
            ((CONFIRMED,), COMPLETED),
            ((COMPLETED,), CONFIRMED),
            ((CONFIRMED,), REFUSED),
            ((REFUSED,), CONFIRMED),
            ((REFUSED,), RELEASED),
            ((NO_STOCK,), RELEASED),
        ],
    )
    def test_contradicting_answer_is_refused(self, events: tuple[Event, ...], event: Event) -> None:
        with pytest.raises(ContradictoryEvent, match=type(event).__name__):
            handled(handled(cancelling(), *events), event)

    @pytest.mark.parametrize(
        ("saga", "ending"),
        [
            ((CONFIRMED, RELEASED), OrderStatus.CANCELLED),
            ((RESERVED, INITIATED, CONFIRMED, RELEASED), OrderStatus.CANCELLED),
            ((CONFIRMED, NO_STOCK), OrderStatus.CANCELLED_NO_STOCK),
            ((RESERVED, INITIATED, REFUSED, COMPLETED), OrderStatus.COMPLETED),
        ],
    )
    @given(data=st.data())
    def test_order_ends_the_same_way_whatever_the_sequence_of_its_events(
        self, saga: tuple[Event, ...], ending: OrderStatus, data: st.DataObject
    ) -> None:
        """The request is decided at any moment; each event arrives at least once, in any sequence."""
        repeats = data.draw(st.lists(st.sampled_from(saga), max_size=4))
        arrivals = data.draw(st.permutations([*saga, *repeats]))
        order = handled(cancelling(), *arrivals)
        assert order.status is ending
        expected = handled(cancelling(), *saga)
        assert msgspec.structs.replace(order, updated_at=NOW) == msgspec.structs.replace(
            expected, updated_at=NOW
        )


class TestRestoring:
    def request(self) -> CancellationRequestedEvent:
        _, (event,) = cancel_order(placed(), wish(), LATER)
        assert isinstance(event, CancellationRequestedEvent)
        return event

    def test_replay_restores_the_request_with_its_time(self) -> None:
        assert replay_request(placed(), self.request(), LATER) == (cancelling(), [])

    @pytest.mark.parametrize("events", [(), (REFUSED,), (CONFIRMED, RELEASED)])
    def test_replay_changes_nothing_that_the_backup_has(self, events: tuple[Event, ...]) -> None:
        order = handled(cancelling(), *events)
        assert replay_request(order, self.request(), LATER) == (order, [])

    def test_replay_adds_the_request_to_an_ended_order(self) -> None:
        order, _ = replay_request(handled(placed(), COMPLETED), self.request(), LATER)
        assert order.status is OrderStatus.COMPLETED
        assert handled(order, REFUSED).status is OrderStatus.COMPLETED

    def test_request_that_overtakes_its_order_is_to_be_replayed_again(self) -> None:
        with pytest.raises(UnknownOrder):
            replay_request(None, self.request(), LATER)

    def test_open_request_is_republished_with_its_time(self) -> None:
        created, request = republish_order(cancelling())[:1], republish_order(cancelling())[-1:]
        assert created == request == [(self.request(), LATER)]

    @pytest.mark.parametrize("events", [(CONFIRMED,), (REFUSED,)])
    def test_decided_request_is_not_republished(self, events: tuple[Event, ...]) -> None:
        assert republish_order(handled(cancelling(), *events)) == []

    def test_cancelled_order_republishes_its_ending(self) -> None:
        ((event, at),) = republish_order(handled(cancelling(), CONFIRMED, RELEASED))
        assert isinstance(event, OrderCancelledEvent)
        assert (event.status, at) == ("CANCELLED", LATER_STILL)


def test_order_that_ended_before_it_reached_inventory_takes_its_answer_as_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where a step between the two has ended it, such as a payment that is declined."""
    stage = OrderStatus.CANCELLED_NO_STOCK.stage
    allows = msgspec.structs.replace(stage, implies={"reservation": (None, "CANCELLED")})
    monkeypatch.setattr(OrderStatus.CANCELLED_NO_STOCK, "stage", allows)
    never = msgspec.structs.replace(RELEASED, outcome="NEVER_RESERVED")
    order = handled(cancelling(), NO_STOCK, never)
    assert order.status is OrderStatus.CANCELLED_NO_STOCK
    assert cancellation(order).state is ChangeState.CONFIRMED

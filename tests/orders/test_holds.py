"""Tests of the decisions about the holds of an order, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    OrderCreatedEvent,
    OrderedItem,
    ReservedItem,
    ShipmentCompletedEvent,
    ShippedItem,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.orders.cancellation import CancelOrder, cancel_order
from todoku.orders.deadlines import when_late
from todoku.orders.domain import ContradictoryEvent, Order, OrderStatus, UnknownOrder
from todoku.orders.holding import (
    HoldOrder,
    InvalidHold,
    NewHold,
    ReleaseHold,
    TooLateToHold,
    TooManyHolds,
    UnknownHold,
    UnknownHolder,
    hold_expires_at,
    hold_order,
    release_hold,
    when_hold_expires,
)
from todoku.orders.holds import BY_ENDING, HOLDS_MAX, Hold, HoldState, held_since
from todoku.orders.placing import Placement, PlaceOrder, place_order
from todoku.orders.recovery import replay_order, republish_order
from todoku.orders.service import command_handlers, orders_service
from todoku.orders.settings import OrdersSettings
from todoku.settings import Settings

orders = orders_service(Settings())

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
HOLD_ID: Final = "0198c2f1-31c4-7e95-a8d2-7b0c4f6e1d23"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
EXPIRY: Final = NOW + timedelta(hours=1)
LATE: Final = EXPIRY + timedelta(seconds=1)

FRAUD: Final = NewHold(holder="fraud-review", reason="Three orders to one address.")
ABOUT: Final[dict[str, Any]] = {
    "order_id": ORDER_ID,
    "hold_id": HOLD_ID,
    "holder": FRAUD.holder,
    "reason": FRAUD.reason,
}
CONFIRMED: Final = HoldConfirmedEvent(**ABOUT)
REFUSED: Final = HoldRefusedEvent(**ABOUT, refusal="The carrier was already called.")
RESERVED: Final = StockReservedEvent(
    order_id=ORDER_ID, items=(ReservedItem(product_id="a", quantity=2),)
)
NO_STOCK: Final = StockReservationFailedEvent(order_id=ORDER_ID, reason="none", failed_items=())
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID,
    shipment_id="s",
    tracking_number="t",
    items=(ShippedItem(product_id="a", quantity=2),),
)


def command(*holds: NewHold) -> PlaceOrder:
    return PlaceOrder(
        order_id=ORDER_ID,
        user_id="user123",
        items=(OrderedItem(product_id="a", quantity=2, price=5),),
        currency="JPY",
        holds=holds,
        by="shop",
    )


def placed(*events: Event) -> Order:
    return handled(place_order(None, command(), NOW)[0], *events)


def handled(order: Order, *events: Event, now: datetime = LATER) -> Order:
    """Return the order after these events."""
    for event in events:
        order, _ = orders.event_handlers[type(event)](order, event, now)
    return order


def wish(hold: NewHold = FRAUD, hold_id: str = HOLD_ID) -> HoldOrder:
    return HoldOrder(order_id=ORDER_ID, hold_id=hold_id, hold=hold, by="risk-engine")


def held(*events: Event, hold: NewHold = FRAUD) -> Order:
    return handled(hold_order(placed(), wish(hold), NOW)[0], *events)


def released(order: Order) -> Order:
    return release_hold(order, RELEASE, LATER)[0]


def only_hold(order: Order) -> Hold:
    (hold,) = order.holds
    return hold


RELEASE: Final = ReleaseHold(order_id=ORDER_ID, hold_id=HOLD_ID, by="alice")


class TestRequesting:
    @pytest.mark.parametrize("events", [(), (RESERVED,)])
    def test_open_order_is_held_and_the_request_is_published(
        self, events: tuple[Event, ...]
    ) -> None:
        before = placed(*events)
        order, published = hold_order(before, wish(), LATER)
        assert (order.status, order.updated_at) == (before.status, LATER)
        assert only_hold(order) == Hold(
            id=HOLD_ID,
            holder="fraud-review",
            reason=FRAUD.reason,
            state=HoldState.REQUESTED,
            requested_at=LATER,
            by="risk-engine",
        )
        assert published == [HoldRequestedEvent(**ABOUT, requested_by="risk-engine")]
        assert held_since(order.holds) == LATER

    def test_same_request_is_executed_once(self) -> None:
        """After a commit whose result is unknown, the same command is executed again."""
        assert hold_order(held(), wish(), LATER) == (held(), [])

    def test_order_with_several_holds_is_held_since_the_first(self) -> None:
        other = NewHold(holder="address-check", reason="No house number.")
        order, _ = hold_order(held(), wish(other, "other"), LATER)
        assert [hold.holder for hold in order.holds] == ["fraud-review", "address-check"]
        assert held_since(order.holds) == NOW

    def test_unknown_order_is_refused(self) -> None:
        with pytest.raises(UnknownOrder, match=ORDER_ID):
            hold_order(None, wish(), NOW)

    @pytest.mark.parametrize("event", [NO_STOCK, COMPLETED])
    def test_ended_order_is_too_late(self, event: Event) -> None:
        with pytest.raises(TooLateToHold, match="has ended"):
            hold_order(placed(event), wish(), LATER)

    def test_order_of_which_a_hold_was_refused_is_too_late(self) -> None:
        with pytest.raises(TooLateToHold, match="carrier was called"):
            hold_order(held(REFUSED), wish(hold_id="other"), LATER)

    def test_too_many_holds_are_refused(self) -> None:
        order = placed()
        for n in range(HOLDS_MAX):
            order, _ = hold_order(order, wish(hold_id=f"hold{n}"), NOW)
        with pytest.raises(TooManyHolds, match="may have 50"):
            hold_order(order, wish(), NOW)
        with pytest.raises(TooManyHolds, match="51 holds"):
            place_order(None, command(*[FRAUD] * (HOLDS_MAX + 1)), NOW)

    @pytest.mark.parametrize(
        ("expires_at", "why"),
        [(NOW, "in the past"), (NOW + timedelta(days=3_651), "more than ten years ahead")],
    )
    def test_expiry_that_cannot_be_kept_is_refused(self, expires_at: datetime, why: str) -> None:
        hold = msgspec.structs.replace(FRAUD, expires_at=expires_at)
        with pytest.raises(InvalidHold, match=why):
            hold_order(placed(), wish(hold), NOW)
        with pytest.raises(InvalidHold, match=why):
            place_order(None, command(hold), NOW)

    def test_only_holders_of_the_setting_may_hold_orders(self) -> None:
        settings = Settings(own_settings=(OrdersSettings(holders="fraud-review, address-check"),))
        handlers = command_handlers(settings)
        assert handlers[HoldOrder](placed(), wish(), NOW)[0].holds
        stranger = msgspec.structs.replace(FRAUD, holder="stranger")
        with pytest.raises(UnknownHolder, match="address-check, fraud-review"):
            handlers[HoldOrder](placed(), wish(stranger), NOW)
        with pytest.raises(UnknownHolder):
            handlers[PlaceOrder](Placement(None, {}), command(stranger), NOW)


class TestPlacing:
    def test_order_is_placed_with_its_holds_and_its_event_has_them(self) -> None:
        expiring = NewHold(holder="address-check", reason="No number.", expires_at=EXPIRY)
        order, (created, *requests) = place_order(None, command(FRAUD, expiring), NOW)
        assert isinstance(created, OrderCreatedEvent)
        assert created.holds
        assert [hold.hold_id for hold in created.holds] == [
            fact_id(ORDER_ID, "Hold 1"),
            fact_id(ORDER_ID, "Hold 2"),
        ]
        assert [(type(request), getattr(request, "with_order", None)) for request in requests] == [
            (HoldRequestedEvent, True)
        ] * 2
        assert hold_expires_at(order) == EXPIRY
        assert place_order(order, command(FRAUD, expiring), LATER) == (order, [])

    def test_order_that_is_restored_from_its_events_has_the_same_holds(self) -> None:
        expiring = msgspec.structs.replace(FRAUD, expires_at=EXPIRY)
        order, (created, request) = place_order(
            None, command(expiring), NOW, deadline_after=timedelta(days=7)
        )
        restored, _ = replay_order(None, created, NOW)  # type: ignore[arg-type]
        assert hold_expires_at(restored) == EXPIRY
        restored, _ = orders.replay_handlers[HoldRequestedEvent](restored, request, LATER)
        assert restored == order


class TestAnswers:
    def test_confirmation_is_recorded(self) -> None:
        hold = only_hold(held(CONFIRMED))
        assert (hold.state, hold.decided_at) == (HoldState.CONFIRMED, LATER)

    def test_refusal_lets_the_order_go_on(self) -> None:
        order = held(REFUSED)
        hold = only_hold(order)
        assert (hold.state, hold.refusal) == (HoldState.REFUSED, REFUSED.refusal)
        assert held_since(order.holds) is None
        assert handled(order, COMPLETED).status is OrderStatus.COMPLETED

    def test_answer_about_a_hold_that_is_lost_restores_it(self) -> None:
        order = handled(placed(), CONFIRMED)
        assert held_since(order.holds) == LATER

    @pytest.mark.parametrize(
        ("first", "second"), [(CONFIRMED, REFUSED), (REFUSED, CONFIRMED)], ids=str
    )
    def test_contradicting_answer_is_refused(self, first: Event, second: Event) -> None:
        with pytest.raises(ContradictoryEvent, match=type(second).__name__):
            handled(held(first), second)

    @pytest.mark.parametrize(
        ("saga", "state"),
        [
            ((CONFIRMED, NO_STOCK), HoldState.RELEASED),
            ((RESERVED, REFUSED, COMPLETED), HoldState.REFUSED),
            ((RESERVED, CONFIRMED), HoldState.CONFIRMED),
        ],
    )
    @given(data=st.data())
    def test_hold_ends_the_same_way_whatever_the_sequence_of_the_events(
        self, saga: tuple[Event, ...], state: HoldState, data: st.DataObject
    ) -> None:
        """Each event arrives at least once, in any sequence."""
        repeats = data.draw(st.lists(st.sampled_from(saga), max_size=4))
        arrivals = data.draw(st.permutations([*saga, *repeats]))
        assert handled(held(), *arrivals) == held(*saga)
        assert only_hold(held(*saga)).state is state


class TestReleasing:
    @pytest.mark.parametrize("events", [(), (CONFIRMED,)])
    def test_open_hold_is_released_and_this_is_published(self, events: tuple[Event, ...]) -> None:
        order, published = release_hold(held(*events), RELEASE, LATER)
        hold = only_hold(order)
        assert (hold.state, hold.released_at, hold.released_by) == (
            HoldState.RELEASED,
            LATER,
            "alice",
        )
        assert published == [HoldReleasedEvent(**ABOUT, outcome="RELEASED", released_by="alice")]
        assert held_since(order.holds) is None

    def test_releasing_twice_has_the_same_answer_and_publishes_nothing(self) -> None:
        order = released(held())
        again = msgspec.structs.replace(RELEASE, by="bob")
        assert release_hold(order, again, LATE) == (order, [])

    @pytest.mark.parametrize("event", [REFUSED, NO_STOCK])
    def test_hold_that_holds_nothing_any_more_stays_as_it_is(self, event: Event) -> None:
        order = held(event)
        assert release_hold(order, RELEASE, LATE) == (order, [])

    def test_unknown_order_and_unknown_hold_are_refused(self) -> None:
        with pytest.raises(UnknownOrder):
            release_hold(None, RELEASE, NOW)
        with pytest.raises(UnknownHold, match=HOLD_ID):
            release_hold(placed(), RELEASE, NOW)

    @pytest.mark.parametrize("answer", [CONFIRMED, REFUSED])
    def test_answer_that_comes_after_the_release_is_recorded(self, answer: Event) -> None:
        hold = only_hold(handled(released(held()), answer))
        assert (hold.state, hold.decided_at) == (HoldState.RELEASED, LATER)

    def test_order_that_ends_closes_its_holds(self) -> None:
        hold = only_hold(held(CONFIRMED, NO_STOCK))
        assert (hold.state, hold.released_by) == (HoldState.RELEASED, BY_ENDING)

    def test_cancellation_of_a_held_order_closes_its_holds(self) -> None:
        cancel = CancelOrder(order_id=ORDER_ID, change_id="change")
        order, _ = cancel_order(held(CONFIRMED), cancel, LATER)
        assert only_hold(order).state is HoldState.CONFIRMED
        items = (CancelledItem(product_id="a", quantity=2),)
        change = {"order_id": ORDER_ID, "change_id": "change", "items": items, "whole": True}
        confirmed = CancellationConfirmedEvent(**change)
        order = handled(order, confirmed, StockReleasedEvent(**change, outcome="RELEASED"))
        assert order.status is OrderStatus.CANCELLED
        assert only_hold(order).released_by == BY_ENDING


class TestExpiring:
    EXPIRING: Final = NewHold(holder="fraud-review", reason="A day.", expires_at=EXPIRY)

    def test_hold_expires_and_this_is_published(self) -> None:
        order, published = when_hold_expires(held(CONFIRMED, hold=self.EXPIRING), LATE)
        hold = only_hold(order)
        assert (hold.state, hold.released_at) == (HoldState.EXPIRED, LATE)
        assert hold_expires_at(order) is None
        (event,) = published
        assert isinstance(event, HoldReleasedEvent)
        assert event.outcome == "EXPIRED"

    def test_other_holds_stay_open(self) -> None:
        order, _ = hold_order(held(hold=self.EXPIRING), wish(hold_id="other"), NOW)
        order, _ = when_hold_expires(order, LATE)
        assert [hold.state for hold in order.holds] == [HoldState.EXPIRED, HoldState.REQUESTED]

    def test_released_hold_does_not_expire(self) -> None:
        assert hold_expires_at(released(held(hold=self.EXPIRING))) is None

    def test_order_that_an_older_version_has_ended_has_no_open_hold(self) -> None:
        ended = placed(COMPLETED)
        left = msgspec.structs.replace(ended, holds=held(hold=self.EXPIRING).holds)
        order, published = when_hold_expires(left, LATE)
        assert only_hold(order).released_by == BY_ENDING
        assert (published, order.updated_at) == ([], ended.updated_at)

    def test_deadline_runs_on_while_the_order_is_held(self) -> None:
        order, (event,) = when_late(
            msgspec.structs.replace(held(CONFIRMED), deadline=EXPIRY, due_at=EXPIRY), LATE
        )
        assert isinstance(event, CancellationRequestedEvent)
        assert order.status is OrderStatus.CANCELLING


class TestRestoring:
    @pytest.mark.parametrize("before", [(), (NO_STOCK,)])
    def test_replay_restores_request_and_release(self, before: tuple[Event, ...]) -> None:
        expected, (request,) = hold_order(placed(), wish(), LATER)
        expected, (release,) = release_hold(expected, RELEASE, LATER)
        order = placed(*before)
        for event in (request, release):
            order, _ = orders.replay_handlers[type(event)](order, event, LATER)
        assert order.holds == expected.holds
        for event in (request, release):
            assert orders.replay_handlers[type(event)](order, event, LATE) == (order, [])

    def test_hold_of_an_ended_order_is_restored_closed(self) -> None:
        _, (request,) = hold_order(placed(), wish(), LATER)
        order, _ = orders.replay_handlers[HoldRequestedEvent](placed(NO_STOCK), request, LATER)
        assert only_hold(order).released_by == BY_ENDING

    def test_what_overtakes_its_order_is_to_be_replayed_again(self) -> None:
        _, (request,) = hold_order(placed(), wish(), LATER)
        _, (release,) = release_hold(held(), RELEASE, LATER)
        for event in (request, release):
            with pytest.raises(UnknownOrder):
                orders.replay_handlers[type(event)](None, event, LATER)

    def test_what_shipping_may_lack_is_republished_with_its_time(self) -> None:
        _, (request,) = hold_order(placed(), wish(), NOW)
        assert republish_order(held())[1:] == [(request, NOW)]
        assert republish_order(held(CONFIRMED))[1:] == []
        _, (release,) = release_hold(held(CONFIRMED), RELEASE, LATER)
        assert republish_order(released(held(CONFIRMED)))[1:] == [(release, LATER)]

"""Tests of what a confirmed cancellation means for the stock, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancelledItem,
    OrderCreatedEvent,
    OrderedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReleasedEvent,
)
from todoku.inventory.domain import (
    ContradictoryEvent,
    InvalidCancellation,
    Line,
    Product,
    ReservationState,
    Stock,
    deduct_stock,
    release_cancelled,
    release_stock,
    replay_release,
    republish_reservation,
    reserve_stock,
)

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
CHANGE: Final = {
    "order_id": ORDER_ID,
    "change_id": "change",
    "items": (CancelledItem(product_id="prod001", quantity=3),),
    "whole": True,
}
CONFIRMED: Final = CancellationConfirmedEvent(**CHANGE)
RELEASED: Final = StockReleasedEvent(**CHANGE, outcome="RELEASED")
NEVER_RESERVED: Final = StockReleasedEvent(**CHANGE, outcome="NEVER_RESERVED")
CREATED: Final = OrderCreatedEvent(
    order_id=ORDER_ID,
    user_id="user123",
    items=(OrderedItem(product_id="prod001", quantity=3, price=1),),
    total_amount=3,
)
FAILED: Final = ShipmentFailedEvent(order_id=ORDER_ID, shipment_id="s", reason="r", items=())
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID, shipment_id="s", tracking_number="t", items=()
)


def stock(on_hand: int = 10) -> Stock:
    """Return the stock without a reservation."""
    product = Product(
        id="prod001",
        name="n",
        price=1,
        currency="JPY",
        on_hand=on_hand,
        reserved=0,
        created_at=NOW,
        updated_at=NOW,
    )
    return Stock(products={"prod001": product})


def with_products(state: Stock, products: Stock) -> Stock:
    """Return what the store hands to the next decision: the products that this one did not return, too."""
    return Stock(products={**products.products, **state.products}, reservation=state.reservation)


def reserved() -> Stock:
    return reserve_stock(stock(), CREATED, NOW)[0]


def state_of(state: Stock) -> ReservationState:
    assert state.reservation is not None
    return state.reservation.state


class TestReleasing:
    def test_reserved_pieces_are_available_again_and_stay_on_hand(self) -> None:
        after, events = release_cancelled(reserved(), CONFIRMED, LATER)
        assert state_of(after) is ReservationState.RELEASED
        product = after.products["prod001"]
        assert (product.on_hand, product.reserved) == (10, 0)
        assert after.entries == ()
        assert events == [RELEASED]

    def test_order_that_is_still_to_come_reserves_nothing(self) -> None:
        after, events = release_cancelled(Stock(products={}), CONFIRMED, LATER)
        assert events == [NEVER_RESERVED]
        later = with_products(after, stock())
        assert reserve_stock(later, CREATED, LATER) == (later, [])

    def test_refusal_stays_and_is_the_answer(self) -> None:
        refused, _ = reserve_stock(stock(on_hand=2), CREATED, NOW)
        assert release_cancelled(refused, CONFIRMED, LATER) == (refused, [])

    def test_confirmation_that_comes_twice_changes_nothing(self) -> None:
        for before in (reserved(), Stock(products={})):
            after, _ = release_cancelled(before, CONFIRMED, LATER)
            assert release_cancelled(after, CONFIRMED, LATER) == (after, [])

    def test_second_cancellation_of_a_restored_order_is_answered_too(self) -> None:
        after, _ = release_cancelled(reserved(), CONFIRMED, LATER)
        other = CancellationConfirmedEvent(**{**CHANGE, "change_id": "other"})
        again, (event,) = release_cancelled(after, other, LATER)
        assert state_of(again) is ReservationState.RELEASED
        assert isinstance(event, StockReleasedEvent)
        assert event.change_id == "other"

    def test_what_was_shipped_or_rejected_is_not_released(self) -> None:
        shipped, _ = deduct_stock(reserved(), COMPLETED, NOW)
        rejected, _ = release_stock(reserved(), FAILED, NOW)
        for state in (shipped, rejected):
            with pytest.raises(ContradictoryEvent, match="CancellationConfirmedEvent"):
                release_cancelled(state, CONFIRMED, LATER)

    def test_what_was_never_reserved_cannot_have_been_shipped(self) -> None:
        cancelled, _ = release_cancelled(Stock(products={}), CONFIRMED, LATER)
        with pytest.raises(ContradictoryEvent, match="CANCELLED"):
            deduct_stock(cancelled, COMPLETED, LATER)

    def test_cancellation_without_items_is_refused(self) -> None:
        empty = CancellationConfirmedEvent(**{**CHANGE, "items": ()})
        with pytest.raises(InvalidCancellation, match="no items"):
            release_cancelled(Stock(products={}), empty, LATER)


class TestRestoring:
    @pytest.mark.parametrize(
        ("before", "event"), [(reserved(), RELEASED), (Stock(products={}), NEVER_RESERVED)]
    )
    def test_replay_restores_what_was_decided(
        self, before: Stock, event: StockReleasedEvent
    ) -> None:
        decided, _ = release_cancelled(before, CONFIRMED, LATER)
        assert replay_release(before, event, LATER) == (decided, [])
        assert replay_release(decided, event, LATER) == (decided, [])

    def test_replay_without_the_reservation_moves_no_stock(self) -> None:
        """The stream holds the reservation no longer, or it cannot be restored yet."""
        restored, _ = replay_release(Stock(products={}), RELEASED, LATER)
        assert state_of(restored) is ReservationState.RELEASED
        assert restored.reservation is not None
        assert restored.reservation.lines == (Line("prod001", 3),)
        assert restored.products == {}
        later = with_products(restored, stock())
        assert reserve_stock(later, CREATED, LATER) == (later, [])

    @pytest.mark.parametrize(
        ("before", "event"), [(reserved(), RELEASED), (Stock(products={}), NEVER_RESERVED)]
    )
    def test_release_is_republished_with_its_time(
        self, before: Stock, event: StockReleasedEvent
    ) -> None:
        decided, _ = release_cancelled(before, CONFIRMED, LATER)
        assert republish_reservation(decided) == [(event, LATER)]

    def test_stock_released_after_a_shipment_republishes_nothing(self) -> None:
        rejected, _ = release_stock(reserved(), FAILED, NOW)
        assert republish_reservation(rejected) == []

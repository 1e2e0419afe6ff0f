"""Tests of cancelled pieces of an order's lines at shipping, without any I/O."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import pytest
from msgspec import UNSET

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    ReservedItem,
    ShippedItem,
    StockReservedEvent,
)
from todoku.shipping.cancellation import decide_cancellation, replay_confirmation
from todoku.shipping.domain import Shipment, ShipmentStatus, initiate_shipment, when_due

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)


def requested(change: str, *items: tuple[str, int], whole: bool = False) -> Any:
    return CancellationRequestedEvent(
        order_id=ORDER_ID,
        change_id=change,
        items=tuple(CancelledItem(product_id=key, quantity=n) for key, n in items),
        whole=whole,
    )


def reserved(a: int, b: int, *changes: str) -> StockReservedEvent:
    return StockReservedEvent(
        order_id=ORDER_ID,
        items=tuple(
            ReservedItem(product_id=key, quantity=n) for key, n in (("a", a), ("b", b)) if n
        ),
        shipping_address="1-1 Chiyoda",
        changes=changes or UNSET,
    )


ONE_A: Final = requested("one a", ("a", 1))
ALL_B: Final = requested("all b", ("b", 1))
THE_REST: Final = requested("the rest", ("a", 2), whole=True)


def after(*events: Event) -> Shipment:
    shipment: Shipment | None = None
    for event in events:
        if isinstance(event, StockReservedEvent):
            shipment, _ = initiate_shipment(
                shipment, event, NOW, pickup_delay=lambda _: timedelta(seconds=3)
            )
        else:
            shipment, _ = decide_cancellation(shipment, event, LATER)  # type: ignore[arg-type]
    assert shipment is not None
    return shipment


def pieces(shipment: Shipment) -> dict[str, int]:
    return {item.product_id: item.quantity for item in shipment.items}


def test_cancelled_pieces_are_taken_out_of_the_parcel() -> None:
    shipment, events = decide_cancellation(after(reserved(3, 1)), ONE_A, LATER)
    assert (shipment.status, pieces(shipment)) == (ShipmentStatus.INITIATED, {"a": 2, "b": 1})
    assert shipment.due_at is not None
    assert [type(event) for event in events] == [CancellationConfirmedEvent]
    _, (booking,) = when_due(shipment, LATER)
    assert booking.parcel.items == shipment.items


@pytest.mark.parametrize("arrivals", [*permutations([reserved(3, 1), ONE_A, ALL_B])])
def test_parcel_has_what_is_left_in_any_sequence(arrivals: tuple[Event, ...]) -> None:
    assert pieces(after(*arrivals)) == {"a": 2}


def test_what_inventory_has_subtracted_is_not_subtracted_again() -> None:
    assert pieces(after(ONE_A, ALL_B, reserved(2, 1, "one a"))) == {"a": 2}


@pytest.mark.parametrize("arrivals", [*permutations([reserved(3, 1), ONE_A, ALL_B, THE_REST])])
def test_order_that_is_cancelled_line_by_line_is_never_shipped(
    arrivals: tuple[Event, ...],
) -> None:
    shipment = after(*arrivals)
    assert (shipment.status, shipment.due_at) == (ShipmentStatus.CANCELLED, None)


def test_line_is_refused_behind_the_pivot_and_the_parcel_stays() -> None:
    booking, _ = when_due(after(reserved(3, 1)), LATER)
    shipment, events = decide_cancellation(booking, ONE_A, LATER)
    assert [type(event) for event in events] == [CancellationRefusedEvent]
    assert shipment.items == (
        ShippedItem(product_id="a", quantity=3),
        ShippedItem(product_id="b", quantity=1),
    )


def test_lost_change_is_restored_before_the_parcel_is_packed() -> None:
    confirmed = CancellationConfirmedEvent(
        order_id=ORDER_ID, change_id="one a", items=ONE_A.items, whole=False
    )
    restored, _ = replay_confirmation(None, confirmed, LATER)
    assert restored.status is ShipmentStatus.EXPECTED
    shipment, _ = initiate_shipment(
        restored, reserved(3, 1), NOW, pickup_delay=lambda _: timedelta(0)
    )
    assert pieces(shipment) == {"a": 2, "b": 1}

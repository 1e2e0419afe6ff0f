"""Tests that a small instance of the exploration is closed and clean, and that it finds planted bugs."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from prove.exploration import Result, explore
from prove.planted import mutant, plant
from prove.shop import Plant, shop
from simulation import planting
from todoku.contracts import (
    CancellationConfirmedEvent,
    OrderCreatedEvent,
    StockReleasedEvent,
    StockReservedEvent,
)
from todoku.inventory.domain import ReservationState
from todoku.shipping.domain import ShipmentStatus

STATES_MAX = 5_000


def test_no_order_of_arrival_of_one_order_breaks_an_invariant() -> None:
    """Messages lost and repeated, the carrier silent, shipping crashing, each as often as it likes."""
    result = explore(shop([1], republishes=True, deadlines=False))

    assert result.violation is None
    assert result.closed
    assert result.states > 500
    assert result.quiescent > 5


def test_no_order_of_arrival_of_a_refused_order_breaks_an_invariant() -> None:
    result = explore(shop([1], stock=0))

    assert result.violation is None
    assert result.closed


def test_no_order_of_arrival_of_a_cancelled_piece_breaks_an_invariant() -> None:
    result = explore(shop([2], stock=2, cancellations=0, lines=1, deadlines=False))

    assert result.violation is None
    assert result.closed


@pytest.mark.parametrize("placed_held", [False, True])
def test_no_order_of_arrival_of_a_hold_breaks_an_invariant(placed_held: bool) -> None:
    """It is released, or not, at any moment; with the order it is never too late."""
    holds = {"held": True} if placed_held else {"holds": 1}
    result = explore(shop([1], cancellations=0, deadlines=False, **holds))

    assert result.violation is None
    assert result.closed


def test_two_orders_of_one_piece_that_nobody_cancels_break_no_invariant() -> None:
    result = explore(shop([1, 1], cancellations=0, deadlines=False))

    assert result.violation is None
    assert result.closed


def test_interchangeable_orders_behave_like_each_other() -> None:
    """Two orders of the same plan are one; so their ids must not matter."""
    one, other = (explore(shop([n], stock=n, deadlines=False)) for n in (2, 3))

    assert (one.states, one.transitions, one.quiescent) == (
        other.states,
        other.transitions,
        other.quiescent,
    )


@pytest.mark.parametrize(
    ("name", "stock", "problem"),
    [
        ("cancelled-behind-the-pivot", 1, "I4: the carrier was called for an order whose"),
        ("cancelled-shipment-still-due", 1, "I4: the carrier was called for an order whose"),
        ("ended-when-shipping-confirms", 0, "I3: orders cannot: ContradictoryEvent"),
        ("cancelled-order-shipped-when-it-arrives", 1, "I4: the shipment was CANCELLED"),
        ("cancelled-order-reserved-when-it-arrives", 1, "I4: the reservation was CANCELLED"),
        ("cancelled-stock-kept", 1, "I5: the order is CANCELLED, but stock is still reserved"),
        ("refused-cancellation-forgotten", 1, "I4: a change is lost"),
        ("request-never-published", 1, "I3: a cancellation was never answered"),
        ("refusal-never-published", 1, "I3: a cancellation was never answered"),
        ("release-never-published", 1, "I3: the order is CANCELLING, and nothing will end it"),
        ("request-not-durable", 1, "I1: a cancellation was accepted and is missing"),
        ("asking-again-is-another-request", 1, "I1: the order has two cancellations"),
        ("late-event-overwrites-status", 1, "I4: the order was COMPLETED and is AWAITING"),
        ("reservation-decided-anew", 1, "I4: the reservation was RESERVED and is REFUSED"),
        ("refusal-not-durable", 0, "I4: the order is CANCELLED_NO_STOCK, but it has no"),
        ("no-compensation", 1, "I5: the order is SHIPMENT_FAILED, but stock is still reserved"),
        ("ledger-forgotten", 1, "I4: the ledger does not deduct what was shipped"),
        ("deducted-twice", 1, "I3: inventory cannot: AssertionError"),
        ("second-shipment", 1, "I4: the shipment was BOOKING and is INITIATED now"),
        ("ending-not-published", 1, "I3: the ending was never published"),
        ("claim-never-expires", 1, "I3: shipping cannot: ValueError"),
    ],
)
def test_exploration_finds_planted_bug(name: str, stock: int, problem: str) -> None:
    require_found(mutant(name), stock, problem)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("hold-never-published", "I3: a hold was never answered, and is released"),
        ("hold-refusal-never-published", "I3: a hold was never answered, and is released"),
        ("hold-confirmed-and-forgotten", "I4: the order is held, and its shipment is BOOKING"),
        ("held-behind-the-pivot", "I4: the order is held, and its shipment is BOOKING"),
        ("release-that-overtakes-is-forgotten", "I3: the order is AWAITING_SHIPMENT, and"),
        ("released-shipment-stays-held", "I3: the order is AWAITING_SHIPMENT, and"),
    ],
)
def test_exploration_finds_planted_bug_of_a_hold(name: str, problem: str) -> None:
    require_found(mutant(name), 1, problem, cancellations=0, holds=1, deadlines=False)


def drops_holds(original: Any, stock: Any, event: Any, now: Any) -> Any:
    """Do not pass on the holds of a new order."""
    return original(stock, msgspec.structs.replace(event, holds=UNSET), now)


def test_hold_that_comes_too_late_although_it_was_placed_with_its_order_is_found() -> None:
    bug = planting.events("inventory", OrderCreatedEvent, drops_holds)

    problem = "I4: a hold that came with its order was too late"
    require_found(plant(bug), 1, problem, held=True, deadlines=False)


def released_twice(original: Any, stock: Any, event: Any, now: Any) -> Any:
    """Release a second time what a duplicate of a confirmation is about."""
    held = stock.reservation
    if held is not None and held.state is ReservationState.RELEASED:
        again = msgspec.structs.replace(held, state=ReservationState.RESERVED, changes=())
        stock = msgspec.structs.replace(stock, reservation=again)
    return original(stock, event, now)


def test_stock_released_twice_is_found() -> None:
    bug = planting.events("inventory", CancellationConfirmedEvent, released_twice)

    require_found(plant(bug), 1, "I3: inventory cannot: AssertionError")


def waits_for_inventory(original: Any, order: Any, event: Any, now: Any) -> Any:
    """Refuse a message that is early, instead of deciding on it."""
    if order.shipment_id is None:
        raise LookupError("there is no shipment yet")
    return original(order, event, now)


def test_message_that_cannot_be_handled_early_is_found() -> None:
    bug = planting.events("orders", StockReleasedEvent, waits_for_inventory)

    require_found(plant(bug), 1, "I3: orders cannot: LookupError")


def begins_anew(original: Any, shipment: Any, event: Any, now: Any) -> Any:
    """Publish again and again, in new words, that the same shipment was initiated."""
    after, events = original(shipment, event, now)
    if shipment is not None and shipment.status is ShipmentStatus.INITIATED:
        _, events = original(None, event, now)
        events = [msgspec.structs.replace(each, shipping_address="elsewhere") for each in events]
    return after, events


def test_fact_that_is_published_with_two_contents_is_found() -> None:
    bug = planting.events("shipping", StockReservedEvent, begins_anew)

    require_found(plant(bug), 1, "I4: ShipmentInitiatedEvent was published with two contents")


def test_ending_that_depends_on_the_order_of_arrival_is_found() -> None:
    """If nothing is given, the ending depends on who comes first."""
    scenario = shop([1], deadlines=False)
    told = msgspec.structs.replace(scenario, outcome=lambda seen: ((), scenario.outcome(seen)))

    violation = explore(told).violation

    assert violation is not None
    assert violation.problem.startswith("I4: given (), it ended as")


def test_row_that_stays_due_for_ever_is_found() -> None:
    """Nothing is broken at any moment, but the order never comes to rest."""
    bug = planting.agenda("shipping", decide=lambda original, shipment, now: (shipment, []))

    require_found(plant(bug), 1, "I3: from here, the entity never comes to rest by itself")


def require_found(bug: Plant, stock: int, problem: str, **options: Any) -> Result:
    """Find the bug with one order, on a short path that ends with the broken step."""
    result = explore(shop([1], stock=stock, plant=bug, **options), STATES_MAX)

    assert result.violation is not None
    assert result.violation.problem.startswith(problem)
    assert 1 <= len(result.violation.path) <= 12
    assert result.violation.path[0] == "a client asks to place the order"
    return result

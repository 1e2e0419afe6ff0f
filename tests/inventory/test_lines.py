"""Tests of cancelled pieces of an order's lines at inventory, without any I/O."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import pytest
from msgspec import UNSET

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancelledItem,
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShippedItem,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.inventory.domain import ContradictoryEvent, Line, Product, ReservationState
from todoku.inventory.service import EVENT_HANDLERS, REPLAY_HANDLERS
from todoku.inventory.store import InventoryUnitOfWork

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)


def product(product_id: str, on_hand: int) -> Product:
    return Product(
        id=product_id,
        name="n",
        price=1,
        currency="JPY",
        on_hand=on_hand,
        reserved=0,
        created_at=NOW,
        updated_at=NOW,
    )


class Inventory:
    """The decisions of inventory about one order of three a and one b."""

    def __init__(self, a: int = 10) -> None:
        self.unit_of_work = InventoryUnitOfWork({"a": product("a", a), "b": product("b", 10)}, {})

    def handle(self, *events: Event, handlers: Any = EVENT_HANDLERS) -> list[Event]:
        published: list[Event] = []
        for event in events:
            state, more = handlers[type(event)](self.unit_of_work.view(event), event, LATER)
            self.unit_of_work.put(event, state)
            published += more
        return published

    @property
    def state(self) -> ReservationState:
        return self.unit_of_work.reservations[ORDER_ID].state

    @property
    def lines(self) -> tuple[Line, ...]:
        return self.unit_of_work.reservations[ORDER_ID].lines

    @property
    def stock(self) -> dict[str, tuple[int, int]]:
        """Return by product what is on hand and what is reserved."""
        products = self.unit_of_work.products
        return {key: (products[key].on_hand, products[key].reserved) for key in sorted(products)}


CREATED: Final = OrderCreatedEvent(
    order_id=ORDER_ID,
    user_id="user",
    items=(
        OrderedItem(product_id="a", quantity=3, price=1),
        OrderedItem(product_id="b", quantity=1, price=1),
    ),
    total_amount=4,
)


def confirmed(change: str, *items: tuple[str, int], whole: bool = False) -> Any:
    return CancellationConfirmedEvent(
        order_id=ORDER_ID,
        change_id=change,
        items=tuple(CancelledItem(product_id=key, quantity=n) for key, n in items),
        whole=whole,
    )


ONE_A: Final = confirmed("one a", ("a", 1))
ALL_B: Final = confirmed("all b", ("b", 1))
THE_REST: Final = confirmed("the rest", ("a", 2), whole=True)


def test_cancelled_pieces_of_a_reservation_are_available_again() -> None:
    inventory = Inventory()
    inventory.handle(CREATED)
    (event,) = inventory.handle(ONE_A)
    assert inventory.stock == {"a": (10, 2), "b": (10, 1)}
    assert inventory.lines == (Line("a", 3, 1), Line("b", 1))
    assert isinstance(event, StockReleasedEvent)
    assert (event.items, event.whole, event.outcome) == (ONE_A.items, False, "RELEASED")


def test_pieces_that_are_cancelled_before_the_order_are_never_reserved() -> None:
    inventory = Inventory()
    (event,) = inventory.handle(ONE_A)
    assert isinstance(event, StockReleasedEvent)
    assert (inventory.state, event.outcome) == (ReservationState.EXPECTED, "NEVER_RESERVED")
    (reserved,) = inventory.handle(CREATED)
    assert isinstance(reserved, StockReservedEvent)
    assert reserved.items == (
        ReservedItem(product_id="a", quantity=2),
        ReservedItem(product_id="b", quantity=1),
    )
    assert reserved.changes == ("one a",)
    assert inventory.stock == {"a": (10, 2), "b": (10, 1)}


def test_plain_reservation_names_no_changes() -> None:
    (reserved,) = Inventory().handle(CREATED)
    assert isinstance(reserved, StockReservedEvent)
    assert reserved.changes is UNSET


def test_what_is_left_is_reserved_although_all_of_it_could_not_be() -> None:
    inventory = Inventory(a=2)
    inventory.handle(ONE_A)
    assert isinstance(inventory.handle(CREATED)[0], StockReservedEvent)
    assert isinstance(Inventory(a=2).handle(CREATED)[0], StockReservationFailedEvent)


def test_what_is_shipped_is_deducted_without_the_cancelled_pieces() -> None:
    inventory = Inventory()
    completed = ShipmentCompletedEvent(
        order_id=ORDER_ID, shipment_id="s", tracking_number="t", items=()
    )
    inventory.handle(CREATED, ONE_A, ALL_B, completed)
    assert inventory.stock == {"a": (8, 0), "b": (10, 0)}
    assert [(e.product_id, e.quantity) for e in inventory.unit_of_work.entries] == [("a", -2)]


@pytest.mark.parametrize("arrivals", [*permutations([CREATED, ONE_A, ALL_B, THE_REST])])
def test_order_that_is_cancelled_line_by_line_holds_no_stock_in_any_sequence(
    arrivals: tuple[Event, ...],
) -> None:
    inventory = Inventory()
    inventory.handle(*arrivals, *arrivals)
    assert inventory.state in (ReservationState.RELEASED, ReservationState.CANCELLED)
    assert inventory.stock == {"a": (10, 0), "b": (10, 0)}


@pytest.mark.parametrize("confirmations", [*permutations([ONE_A, ALL_B, THE_REST])])
@pytest.mark.parametrize("lost", [False, True])
def test_released_reservation_is_of_what_was_left_also_if_only_its_releases_are_restored(
    confirmations: tuple[Event, ...], lost: bool
) -> None:
    inventory, restored = Inventory(), Inventory()
    _, *releases = inventory.handle(CREATED, *confirmations)
    restored.handle(*releases, handlers=REPLAY_HANDLERS)
    found = restored if lost else inventory
    assert found.stock == {"a": (10, 0), "b": (10, 0)}
    if found.state is ReservationState.RELEASED:
        assert {line.product_id: line.pieces for line in found.lines if line.pieces} == {"a": 2}
    else:
        assert confirmations[0] is not THE_REST  # Only what was cancelled is known.
        assert (lost, found.state) == (True, ReservationState.CANCELLED)


@pytest.mark.parametrize("arrivals", [*permutations([CREATED, ONE_A, ALL_B])])
def test_what_is_left_is_reserved_in_any_sequence(arrivals: tuple[Event, ...]) -> None:
    inventory = Inventory()
    inventory.handle(*arrivals, *arrivals)
    assert inventory.stock == {"a": (10, 2), "b": (10, 0)}
    assert set(inventory.lines) == {Line("a", 3, 1), Line("b", 1, 1)}


@pytest.mark.parametrize("arrivals", [*permutations([CREATED, ONE_A, ALL_B])])
def test_lost_database_is_rebuilt_from_its_own_events(arrivals: tuple[Event, ...]) -> None:
    before = Inventory()
    published = before.handle(*arrivals)
    restored = Inventory()
    restored.handle(*published, handlers=REPLAY_HANDLERS)
    assert restored.stock == before.stock
    assert set(restored.lines) == set(before.lines)
    assert restored.handle(*arrivals) == []


SHIPPED: Final = (
    ShippedItem(product_id="a", quantity=2),
    ShippedItem(product_id="b", quantity=1),
)
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID, shipment_id="s", tracking_number="t", items=SHIPPED
)
FAILED: Final = ShipmentFailedEvent(
    order_id=ORDER_ID, shipment_id="s", reason="no room", items=SHIPPED
)


@pytest.mark.parametrize(
    ("ending", "on_hand"), [(COMPLETED, {"a": 8, "b": 9}), (FAILED, {"a": 10, "b": 10})]
)
@pytest.mark.parametrize("late", [False, True])
def test_shipment_that_ends_before_the_confirmation_arrives_is_of_what_was_left(
    ending: Event, on_hand: dict[str, int], late: bool
) -> None:
    inventory = Inventory()
    inventory.handle(CREATED, *((ending, ONE_A) if late else (ONE_A, ending)), ending, ONE_A)
    assert inventory.stock == {key: (n, 0) for key, n in on_hand.items()}
    assert inventory.lines == (Line("a", 3, 1), Line("b", 1))


def test_order_that_was_shipped_cannot_be_cancelled_as_a_whole() -> None:
    inventory = Inventory()
    inventory.handle(CREATED, ONE_A, ALL_B, COMPLETED)
    with pytest.raises(ContradictoryEvent, match="SHIPPED"):
        inventory.handle(THE_REST)

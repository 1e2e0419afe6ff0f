"""Tests of stock and reservations, without any I/O."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from todoku.contracts import (
    MAX_SAFE_INTEGER,
    CancellationConfirmedEvent,
    CancelledItem,
    Event,
    FailedItem,
    OrderCreatedEvent,
    OrderedItem,
    ProductChangedEvent,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShippedItem,
    StockAdjustedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.inventory.domain import (
    ContradictoryEvent,
    CorrectStock,
    LedgerEntry,
    LedgerReason,
    Line,
    Product,
    Reservation,
    ReservationState,
    Restock,
    SetProduct,
    Stock,
    StockInUse,
    StockNotSettable,
    TooMuchStock,
    UnknownProduct,
    UnknownReservation,
    correct_stock,
    deduct_stock,
    opening_id,
    release_cancelled,
    release_stock,
    republish_reservation,
    reserve_stock,
    restock,
    set_product,
)
from todoku.inventory.store import InventoryUnitOfWork

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)


def product(product_id: str = "prod001", on_hand: int = 10, reserved: int = 0) -> Product:
    return Product(
        id=product_id,
        name="Super Keyboard",
        price=5000,
        currency="JPY",
        on_hand=on_hand,
        reserved=reserved,
        created_at=NOW,
        updated_at=NOW,
    )


def stock(*products: Product, reservation: Reservation | None = None) -> Stock:
    return Stock(products={each.id: each for each in products}, reservation=reservation)


def created(*lines: tuple[str, int]) -> OrderCreatedEvent:
    return OrderCreatedEvent(
        order_id=ORDER_ID,
        user_id="user123",
        items=tuple(OrderedItem(product_id=key, quantity=n, price=1) for key, n in lines),
        total_amount=1,
        shipping_address="1-1 Chiyoda",
    )


def reservation(state: ReservationState, *lines: Line) -> Reservation:
    return Reservation(
        order_id=ORDER_ID,
        lines=lines or (Line("prod001", 3),),
        state=state,
        created_at=NOW,
        updated_at=NOW,
    )


COMPLETED = ShipmentCompletedEvent(
    order_id=ORDER_ID,
    shipment_id="shipment",
    tracking_number="SIM-1",
    items=(ShippedItem(product_id="prod001", quantity=3),),
)
FAILED = ShipmentFailedEvent(
    order_id=ORDER_ID,
    shipment_id="shipment",
    reason="no room",
    items=(ShippedItem(product_id="prod001", quantity=3),),
)


class TestReserving:
    def test_every_item_is_reserved_and_stock_on_hand_stays(self) -> None:
        before = stock(product("a", on_hand=5, reserved=1), product("b", on_hand=2))
        after, events = reserve_stock(before, created(("a", 4), ("b", 1)), LATER)
        assert {key: (p.on_hand, p.reserved) for key, p in after.products.items()} == {
            "a": (5, 5),
            "b": (2, 1),
        }
        assert after.entries == ()
        assert after.reservation == Reservation(
            order_id=ORDER_ID,
            lines=(Line("a", 4), Line("b", 1)),
            state=ReservationState.RESERVED,
            created_at=LATER,
            updated_at=LATER,
            shipping_address="1-1 Chiyoda",
            total_amount=1,
            currency="JPY",
        )
        assert events == [
            StockReservedEvent(
                order_id=ORDER_ID,
                items=(
                    ReservedItem(product_id="a", quantity=4),
                    ReservedItem(product_id="b", quantity=1),
                ),
                shipping_address="1-1 Chiyoda",
                total_amount=1,
                currency="JPY",
            )
        ]

    def test_lines_of_one_product_are_reserved_together(self) -> None:
        after, events = reserve_stock(
            stock(product(on_hand=4)), created(*[("prod001", 2)] * 2), NOW
        )
        assert after.products["prod001"].reserved == 4
        assert events[0].items == (ReservedItem(product_id="prod001", quantity=4),)  # type: ignore[attr-defined]

    def test_lines_of_one_product_that_exceed_the_stock_together_are_refused(self) -> None:
        after, _ = reserve_stock(stock(product(on_hand=3)), created(*[("prod001", 2)] * 2), NOW)
        assert after.reservation is not None
        assert after.reservation.state is ReservationState.REFUSED

    def test_one_shortage_refuses_the_whole_order(self) -> None:
        before = stock(product("a"), product("b", on_hand=5, reserved=3))
        after, events = reserve_stock(before, created(("a", 1), ("b", 3), ("ghost", 1)), NOW)
        assert after.products == before.products
        assert after.reservation is not None
        assert after.reservation.state is ReservationState.REFUSED
        assert events == [
            StockReservationFailedEvent(
                order_id=ORDER_ID,
                reason="insufficient stock (b: 3 requested, 2 available; "
                "ghost: 1 requested, 0 available)",
                failed_items=(
                    FailedItem(product_id="b", requested_quantity=3, available_quantity=2),
                    FailedItem(product_id="ghost", requested_quantity=1, available_quantity=0),
                ),
            )
        ]

    def test_unknown_product_has_no_stock(self) -> None:
        after, events = reserve_stock(stock(), created(("ghost", 1)), NOW)
        assert isinstance(events[0], StockReservationFailedEvent)
        assert after.products == {}

    def test_reason_names_three_shortages_and_counts_the_rest(self) -> None:
        _, events = reserve_stock(stock(), created(*((f"p{n}", 1) for n in range(5))), NOW)
        assert isinstance(events[0], StockReservationFailedEvent)
        assert events[0].reason.endswith("p2: 1 requested, 0 available; and 2 more)")
        assert len(events[0].failed_items) == 5

    @pytest.mark.parametrize("state", sorted({*ReservationState} - {ReservationState.EXPECTED}))
    def test_reservation_is_decided_once(self, state: ReservationState) -> None:
        """Also when the stock of today would lead to another decision."""
        before = stock(product(on_hand=100, reserved=3), reservation=reservation(state))
        assert reserve_stock(before, created(("prod001", 3)), LATER) == (before, [])

    @pytest.mark.parametrize("lines", [(), (("prod001", 0),), (("prod001", -1),)])
    def test_order_without_pieces_is_an_error(self, lines: tuple[tuple[str, int], ...]) -> None:
        """The orders service never publishes such an event; from elsewhere it must not change the stock."""
        with pytest.raises(AssertionError):
            reserve_stock(stock(product(reserved=5)), created(*lines), NOW)


CONTRADICTION: Final = "contradiction"
REPEAT: Final = "repeat"

ENDINGS: Final = {
    #                          ShipmentCompletedEvent     ShipmentFailedEvent
    ReservationState.RESERVED: (ReservationState.SHIPPED, ReservationState.RELEASED),
    ReservationState.REFUSED:  (CONTRADICTION,            CONTRADICTION),
    ReservationState.SHIPPED:  (REPEAT,                   CONTRADICTION),
    ReservationState.RELEASED: (CONTRADICTION,            REPEAT),
    ReservationState.CANCELLED: (CONTRADICTION,           CONTRADICTION),
}  # fmt: skip
"""Every state of a reservation × both outcomes of a shipment."""

DECIDE: Final = {ShipmentCompletedEvent: deduct_stock, ShipmentFailedEvent: release_stock}


def cells(*outcomes: str) -> list[object]:
    return [
        pytest.param(state, event, id=f"{state}-{type(event).__name__}")
        for state, row in ENDINGS.items()
        for event, outcome in zip((COMPLETED, FAILED), row, strict=True)
        if outcome in outcomes
    ]


def end(before: Stock, event: Event) -> Stock:
    after, events = DECIDE[type(event)](before, event, LATER)  # type: ignore[index,operator]
    assert events == []
    return after


class TestRepublishing:
    def test_live_reservation_republishes_its_event_with_the_address(self) -> None:
        after, (event,) = reserve_stock(stock(product()), created(("prod001", 3)), NOW)
        assert republish_reservation(after) == [(event, NOW)]

    def test_republished_refusal_names_less_available_than_requested(self) -> None:
        lines = (Line("prod001", 3), Line("none", 1))
        refused = reservation(ReservationState.REFUSED, *lines)
        for on_hand in (1, 10):
            here = stock(product(on_hand=on_hand), reservation=refused)
            ((event, occurred_at),) = republish_reservation(here)
            assert event == StockReservationFailedEvent(
                order_id=ORDER_ID,
                reason="insufficient stock",
                failed_items=(
                    FailedItem(
                        product_id="prod001",
                        requested_quantity=3,
                        available_quantity=min(on_hand, 2),
                    ),
                    FailedItem(product_id="none", requested_quantity=1, available_quantity=0),
                ),
            )
            assert occurred_at == NOW

    @pytest.mark.parametrize("state", [ReservationState.SHIPPED, ReservationState.RELEASED])
    def test_ended_reservation_republishes_nothing(self, state: ReservationState) -> None:
        ended = msgspec.structs.replace(reservation(state), shipping_address="1-1 Chiyoda")
        assert republish_reservation(stock(product(), reservation=ended)) == []

    def test_reservation_with_unknown_address_republishes_nothing(self) -> None:
        here = stock(product(reserved=3), reservation=reservation(ReservationState.RESERVED))
        assert republish_reservation(here) == []

    def test_unknown_order_republishes_nothing(self) -> None:
        assert republish_reservation(stock(product())) == []


class TestEnding:
    def test_matrix_covers_every_state(self) -> None:
        no_end = {ReservationState.EXPECTED, ReservationState.WAITING}
        assert set(ENDINGS) == set(ReservationState) - no_end

    @pytest.mark.parametrize("event", [COMPLETED, FAILED])
    def test_order_that_did_not_arrive_is_unknown(self, event: Event) -> None:
        expected = stock(product(), reservation=reservation(ReservationState.EXPECTED))
        with pytest.raises(UnknownReservation, match=ORDER_ID):
            end(expected, event)

    def test_shipped_pieces_are_deducted_with_ledger_entries(self) -> None:
        held = reservation(ReservationState.RESERVED, Line("a", 3), Line("b", 1))
        before = stock(product("a", 10, 4), product("b", 1, 1), reservation=held)
        after = end(before, COMPLETED)
        assert {key: (p.on_hand, p.reserved) for key, p in after.products.items()} == {
            "a": (7, 1),
            "b": (0, 0),
        }
        assert after.reservation is not None
        assert after.reservation.state is ReservationState.SHIPPED
        assert after.entries == tuple(
            LedgerEntry(
                product_id=key,
                quantity=-n,
                reason=LedgerReason.SHIPMENT,
                at=LATER,
                order_id=ORDER_ID,
            )
            for key, n in (("a", 3), ("b", 1))
        )

    def test_released_pieces_are_available_again_without_ledger_entries(self) -> None:
        held = reservation(ReservationState.RESERVED)
        after = end(stock(product(on_hand=10, reserved=4), reservation=held), FAILED)
        assert (after.products["prod001"].on_hand, after.products["prod001"].reserved) == (10, 1)
        assert after.reservation is not None
        assert after.reservation.state is ReservationState.RELEASED
        assert after.reservation.updated_at == LATER
        assert after.entries == ()

    @pytest.mark.parametrize(("state", "event"), cells(REPEAT))
    def test_repeat_changes_nothing(self, state: ReservationState, event: Event) -> None:
        before = stock(product(reserved=5), reservation=reservation(state))
        assert end(before, event) == before

    @pytest.mark.parametrize(("state", "event"), cells(CONTRADICTION))
    def test_contradicting_event_is_refused(self, state: ReservationState, event: Event) -> None:
        with pytest.raises(ContradictoryEvent, match=f"{type(event).__name__}.*{state}"):
            end(stock(product(reserved=5), reservation=reservation(state)), event)

    @pytest.mark.parametrize("event", [COMPLETED, FAILED], ids=lambda event: type(event).__name__)
    def test_ending_of_an_unknown_reservation_is_refused(self, event: Event) -> None:
        with pytest.raises(UnknownReservation, match=ORDER_ID):
            end(stock(product()), event)


class TestProducts:
    def test_new_product_opens_its_ledger(self) -> None:
        command = SetProduct(product_id="prod001", name="Keyboard", price=7, stock_quantity=5)
        after, events = set_product(stock(), command, NOW)
        made = after.products["prod001"]
        assert (made.name, made.price, made.currency) == ("Keyboard", 7, "JPY")
        assert (made.on_hand, made.reserved, made.available) == (5, 0, 5)
        assert after.entries == (
            LedgerEntry(
                product_id="prod001",
                quantity=5,
                reason=LedgerReason.OPENING,
                at=NOW,
                adjustment_id=opening_id("prod001"),
            ),
        )
        assert [type(event) for event in events] == [ProductChangedEvent]

    def test_new_product_without_a_quantity_has_no_stock(self) -> None:
        command = SetProduct(product_id="prod001", name="Keyboard", price=7, currency="EUR")
        after, _ = set_product(stock(), command, NOW)
        assert (after.products["prod001"].on_hand, after.products["prod001"].currency) == (0, "EUR")

    @pytest.mark.parametrize("repeated_quantity", [None, 10])
    def test_existing_product_changes_name_and_price_and_keeps_its_stock(
        self, repeated_quantity: int | None
    ) -> None:
        command = SetProduct(
            product_id="prod001", name="Old Keyboard", price=9, stock_quantity=repeated_quantity
        )
        after, _ = set_product(stock(product(on_hand=10, reserved=4)), command, LATER)
        changed = after.products["prod001"]
        assert (changed.name, changed.price, changed.currency) == ("Old Keyboard", 9, "JPY")
        assert (changed.on_hand, changed.reserved) == (10, 4)
        assert (changed.created_at, changed.updated_at) == (NOW, LATER)
        assert after.entries == ()

    def test_stock_of_an_existing_product_cannot_be_set(self) -> None:
        command = SetProduct(product_id="prod001", name="Keyboard", price=9, stock_quantity=11)
        with pytest.raises(StockNotSettable, match="restock"):
            set_product(stock(product(on_hand=10)), command, NOW)

    def test_restock_adds_pieces_and_a_ledger_entry(self) -> None:
        command = Restock(
            product_id="prod001", quantity=5, adjustment_id="a1", note="Delivery 4711"
        )
        after, events = restock(stock(product(on_hand=10, reserved=4)), command, LATER)
        assert (after.products["prod001"].on_hand, after.products["prod001"].reserved) == (15, 4)
        assert after.entries == (
            LedgerEntry(
                product_id="prod001",
                quantity=5,
                reason=LedgerReason.RESTOCK,
                at=LATER,
                note="Delivery 4711",
                adjustment_id="a1",
                code="DELIVERY",
            ),
        )
        assert events == [
            StockAdjustedEvent(
                product_id="prod001",
                adjustment_id="a1",
                quantity=5,
                kind="RESTOCK",
                code="DELIVERY",
                reason="Delivery 4711",
            )
        ]

    def test_unknown_product_cannot_be_restocked(self) -> None:
        with pytest.raises(UnknownProduct, match="PUT /products/ghost"):
            restock(stock(), Restock(product_id="ghost", quantity=1, adjustment_id="a1"), NOW)

    def test_stock_may_reach_the_largest_exact_integer(self) -> None:
        before = stock(product(on_hand=MAX_SAFE_INTEGER - 1))
        after, _ = restock(
            before, Restock(product_id="prod001", quantity=1, adjustment_id="a1"), NOW
        )
        assert after.products["prod001"].on_hand == MAX_SAFE_INTEGER
        with pytest.raises(TooMuchStock):
            restock(before, Restock(product_id="prod001", quantity=2, adjustment_id="a1"), NOW)

    @pytest.mark.parametrize(("on_hand", "reserved"), [(-1, 0), (0, -1), (0, 1)])
    def test_negative_or_oversold_stock_is_an_error(self, on_hand: int, reserved: int) -> None:
        with pytest.raises(AssertionError):
            product(on_hand=0).moved(NOW, on_hand=on_hand, reserved=reserved)


PRODUCTS: Final = ("a", "b", "c")


class Warehouse(RuleBasedStateMachine):
    """Check that I2 holds after each step: order, ship, release, repeat, adjust."""

    orders = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.unit_of_work = InventoryUnitOfWork({}, {})
        self.numbers = 0

    def decide(self, function: object, message: object) -> list[Event]:
        state, events = function(self.unit_of_work.view(message), message, NOW)  # type: ignore[operator]
        self.unit_of_work.put(message, state)
        return list(events)

    @initialize(quantities=st.lists(st.integers(0, 6), min_size=2, max_size=2))
    def add_products(self, quantities: list[int]) -> None:
        """Create two of the three products; the third is unknown at first."""
        for key, n in zip(PRODUCTS, quantities, strict=False):
            self.decide(set_product, _set(key, n))

    @rule(key=st.sampled_from(PRODUCTS))
    def set_up(self, key: str) -> None:
        self.decide(set_product, _set(key, None))

    @rule(key=st.sampled_from(PRODUCTS), quantity=st.integers(1, 5))
    def add_pieces(self, key: str, quantity: int) -> None:
        if key in self.unit_of_work.products:
            self.numbers += 1
            command = Restock(
                product_id=key, quantity=quantity, adjustment_id=f"adjustment{self.numbers}"
            )
            for _ in range(2):  # Sent again, it is not entered again.
                self.decide(restock, command)

    @rule(key=st.sampled_from(PRODUCTS), quantity=st.integers(-3, 1))
    def correct(self, key: str, quantity: int) -> None:
        if key in self.unit_of_work.products:
            self.numbers += 1
            command = CorrectStock(
                product_id=key, quantity=quantity, adjustment_id=f"adjustment{self.numbers}"
            )
            if self.unit_of_work.products[key].available + quantity < 0:
                with pytest.raises(StockInUse):
                    self.decide(correct_stock, command)
            else:
                self.decide(correct_stock, command)

    @rule(
        target=orders,
        lines=st.lists(
            st.tuples(st.sampled_from(PRODUCTS), st.integers(1, 4)), min_size=1, max_size=4
        ),
    )
    def order(self, lines: list[tuple[str, int]]) -> OrderCreatedEvent:
        self.numbers += 1
        event = OrderCreatedEvent(
            order_id=f"order{self.numbers}",
            user_id="user",
            items=tuple(OrderedItem(product_id=key, quantity=n, price=1) for key, n in lines),
            total_amount=1,
        )
        assert len(self.decide(reserve_stock, event)) == 1
        return event

    @rule(event=orders)
    def order_again(self, event: OrderCreatedEvent) -> None:
        assert self.decide(reserve_stock, event) == []

    @rule(event=orders)
    def ship(self, event: OrderCreatedEvent) -> None:
        shipped = ShipmentCompletedEvent(
            order_id=event.order_id, shipment_id="s", tracking_number="t", items=()
        )
        self.end(deduct_stock, shipped, ReservationState.SHIPPED)

    @rule(event=orders)
    def release(self, event: OrderCreatedEvent) -> None:
        failed = ShipmentFailedEvent(
            order_id=event.order_id, shipment_id="s", reason="no room", items=()
        )
        self.end(release_stock, failed, ReservationState.RELEASED)

    @rule(event=orders)
    def cancel(self, event: OrderCreatedEvent) -> None:
        held = self.unit_of_work.reservations[event.order_id]
        if held.state is ReservationState.RESERVED:
            assert len(self.decide(release_cancelled, _confirmed(event))) == 1
            held = self.unit_of_work.reservations[event.order_id]
            assert held.state is ReservationState.RELEASED
        elif held.state is ReservationState.REFUSED or held.changes:
            assert self.decide(release_cancelled, _confirmed(event)) == []
        else:
            with pytest.raises(ContradictoryEvent):
                self.decide(release_cancelled, _confirmed(event))

    @rule(target=orders, key=st.sampled_from(PRODUCTS), quantity=st.integers(1, 4))
    def cancel_before_the_order_arrives(self, key: str, quantity: int) -> OrderCreatedEvent:
        self.numbers += 1
        event = OrderCreatedEvent(
            order_id=f"order{self.numbers}",
            user_id="user",
            items=(OrderedItem(product_id=key, quantity=quantity, price=1),),
            total_amount=1,
        )
        assert len(self.decide(release_cancelled, _confirmed(event))) == 1
        return event

    def end(self, function: object, event: Event, ending: ReservationState) -> None:
        before = self.unit_of_work.reservations[event.order_id].state
        if before in (ReservationState.RESERVED, ending):
            self.decide(function, event)
            assert self.unit_of_work.reservations[event.order_id].state is ending
        else:
            with pytest.raises(ContradictoryEvent):
                self.decide(function, event)

    @invariant()
    def the_ledger_adds_up(self) -> None:
        entered: Counter[str] = Counter()
        for entry in self.unit_of_work.entries:
            entered[entry.product_id] += entry.quantity
        assert {key: p.on_hand for key, p in self.unit_of_work.products.items()} == {
            key: entered[key] for key in self.unit_of_work.products
        }

    @invariant()
    def reserved_is_the_sum_of_live_reservations(self) -> None:
        live: Counter[str] = Counter()
        for held in self.unit_of_work.reservations.values():
            if held.state is ReservationState.RESERVED:
                live.update({line.product_id: line.quantity for line in held.lines})
        assert {key: p.reserved for key, p in self.unit_of_work.products.items()} == {
            key: live[key] for key in self.unit_of_work.products
        }

    @invariant()
    def nothing_is_negative_or_oversold(self) -> None:
        for each in self.unit_of_work.products.values():
            assert 0 <= each.reserved <= each.on_hand

    @invariant()
    def each_shipped_order_is_deducted_once(self) -> None:
        deducted = Counter(
            (entry.order_id, entry.product_id, -entry.quantity)
            for entry in self.unit_of_work.entries
            if entry.order_id is not None
        )
        assert deducted == Counter(
            (held.order_id, line.product_id, line.quantity)
            for held in self.unit_of_work.reservations.values()
            if held.state is ReservationState.SHIPPED
            for line in held.lines
        )


def _confirmed(event: OrderCreatedEvent) -> CancellationConfirmedEvent:
    return CancellationConfirmedEvent(
        order_id=event.order_id,
        change_id="change",
        items=tuple(
            CancelledItem(product_id=item.product_id, quantity=item.quantity)
            for item in event.items
        ),
        whole=True,
    )


def _set(key: str, stock_quantity: int | None) -> SetProduct:
    return SetProduct(product_id=key, name=key, price=1, stock_quantity=stock_quantity)


TestWarehouse = Warehouse.TestCase
TestWarehouse.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

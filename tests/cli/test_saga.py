"""Rendering of an order's events."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console

from todoku.cli.exit_codes import ExitCode
from todoku.cli.responses import OrderEvent
from todoku.cli.saga import ENDINGS, STATUS_STYLES, STEPS, SagaRenderer
from todoku.contracts import (
    EVENTS,
    CancellationConfirmedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    FailedItem,
    HoldEvent,
    OrderCancelledEvent,
    OrderCreatedEvent,
    OrderedItem,
    ParkingEvent,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.contracts.order_event import OrderEvent as EventAboutAnOrder
from todoku.orders.domain import OrderStatus

START = datetime(2026, 11, 22, 3, 4, 5, 678_000, tzinfo=UTC)
ORDER = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
SHIPPED = (ShippedItem(product_id="prod001", quantity=2),)

CREATED = OrderCreatedEvent(
    order_id=ORDER,
    user_id="山田太郎",
    items=(OrderedItem(product_id="prod001", quantity=2, price=5_000),),
    total_amount=10_000,
)
RESERVED = StockReservedEvent(
    order_id=ORDER, items=(ReservedItem(product_id="prod001", quantity=2),)
)
REFUSED = StockReservationFailedEvent(
    order_id=ORDER,
    reason="not enough stock",
    failed_items=(FailedItem(product_id="prod001", requested_quantity=2, available_quantity=1),),
)
INITIATED = ShipmentInitiatedEvent(order_id=ORDER, shipment_id=ORDER)
COMPLETED = ShipmentCompletedEvent(
    order_id=ORDER, shipment_id=ORDER, tracking_number="SIM-1", items=SHIPPED
)
FAILED = ShipmentFailedEvent(order_id=ORDER, shipment_id=ORDER, reason="no room", items=SHIPPED)


def recorded(*events: tuple[Event, str]) -> list[OrderEvent]:
    """Events as the orders service lists them, ten milliseconds apart."""
    return [
        OrderEvent(
            sequence=n + 1,
            type=type(event).__name__,
            source=event.publisher,
            time=START + timedelta(milliseconds=10 * n),
            status=status,
            data=msgspec.Raw(msgspec.json.encode(event)),
        )
        for n, (event, status) in enumerate(events)
    ]


def rendered(events: Sequence[OrderEvent], *, width: int = 80) -> list[str]:
    console, renderer = Console(width=width, markup=False, highlight=False), SagaRenderer()
    with console.capture() as capture:
        for event in events:
            console.print(renderer.render(event))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_event_line_has_time_source_type_and_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = rendered(recorded((CREATED, "PENDING"), (RESERVED, "AWAITING_SHIPMENT")))

    local = START.astimezone()
    assert lines[0].split() == [
        *(f"{local:%H:%M:%S}.678", "+0", "ms"),
        *("orders", "OrderCreatedEvent", "PENDING"),
    ]
    assert lines[1].strip() == "山田太郎 orders prod001 ×2 for 10,000 JPY"
    assert lines[2].split()[1:] == [
        *("+10", "ms", "inventory", "StockReservedEvent", "AWAITING_SHIPMENT")
    ]
    assert lines[3].strip() == "reserves prod001 ×2"


def test_failed_shipment_lists_released_stock() -> None:
    lines = rendered(recorded((CREATED, "PENDING"), (FAILED, "SHIPMENT_FAILED")))

    assert "no room" in lines[-2]
    assert lines[-1].strip() == "↩ compensation: inventory releases prod001 ×2"


def test_failed_reservation_lists_requested_and_available_stock() -> None:
    lines = rendered(recorded((CREATED, "PENDING"), (REFUSED, "CANCELLED_NO_STOCK")))

    assert [line.strip() for line in lines[-2:]] == [
        "prod001: 2 requested, 1 available",
        "not enough stock: nothing is reserved for this order",
    ]


def test_parked_message_and_its_resolution_are_shown() -> None:
    letter = {
        "order_id": ORDER,
        "letter_id": "1",
        "message_type": "StockReservedEvent",
        "error": "UndecodableEvent",
        "parked_at": START,
    }
    parked, closed = ShippingMessageParkedEvent(**letter), ShippingMessageClosedEvent(**letter)

    lines = rendered(
        recorded((CREATED, "PENDING"), (parked, "PENDING"), (closed, "PENDING")), width=120
    )

    assert "StockReservedEvent failed (UndecodableEvent) and needs manual action" in lines[3]
    assert "the parked StockReservedEvent is resolved" in lines[5]
    assert "late" not in "".join(lines)


def test_only_overtaken_event_is_marked_late() -> None:
    events = recorded(
        (CREATED, "PENDING"),
        (INITIATED, "AWAITING_SHIPMENT"),
        (RESERVED, "AWAITING_SHIPMENT"),
        (COMPLETED, "COMPLETED"),
    )

    lines = rendered(events)

    late = [n for n, line in enumerate(lines) if "late: " in line]
    assert len(late) == 1
    assert "StockReservedEvent" in lines[late[0] - 1]


def test_lines_have_at_most_eighty_columns() -> None:
    many = tuple(
        OrderedItem(product_id="製品" * 8, quantity=10**9, price=10**6) for _ in range(1_000)
    )
    created = msgspec.structs.replace(CREATED, items=many, total_amount=10**15)
    events = recorded(
        (created, "PENDING"),
        (REFUSED, "CANCELLED_NO_STOCK"),
        (INITIATED, "CANCELLED_NO_STOCK"),
        (FAILED, "CANCELLED_NO_STOCK"),
    )
    events[-1] = msgspec.structs.replace(events[-1], time=START + timedelta(days=1))

    assert max(map(cell_len, rendered(events))) <= 80


def test_unknown_event_is_rendered_without_details() -> None:
    (unknown,) = recorded((CREATED, "PENDING"))
    unknown = msgspec.structs.replace(unknown, type="OrderPaidEvent", status="PAID")
    (changed,) = recorded((CREATED, "PENDING"))
    changed = msgspec.structs.replace(changed, data=msgspec.Raw(b'{"orderId": 5}'))

    lines = rendered([unknown, changed])

    assert [line.split()[-2:] for line in lines] == [
        ["OrderPaidEvent", "PAID"],
        ["OrderCreatedEvent", "PENDING"],
    ]


def test_control_characters_in_event_are_replaced() -> None:
    created = msgspec.structs.replace(CREATED, user_id="\x1b[2J\r\nevil [bold]")

    lines = rendered(recorded((created, "PENDING\x1b[0m")))

    assert "\x1b" not in "".join(lines)
    assert "[bold]" in lines[1]


def test_every_event_has_a_step_except_those_that_occur_at_any_time() -> None:
    """Cancellations and holds are requested and decided at any time; only the release that ends a
    cancellation has its place. An attempt to book a parcel fails as often as it is made."""
    at_any_time = {"CancellationRequestedEvent", "CancellationConfirmedEvent"}
    at_any_time |= {"CancellationRefusedEvent", "BookingAttemptFailedEvent", "StockAwaitedEvent"}
    about_the_saga = {
        name
        for name, event in EVENTS.items()
        if issubclass(event, EventAboutAnOrder) and not issubclass(event, ParkingEvent | HoldEvent)
    }
    assert set(STEPS) == about_the_saga - at_any_time


def test_cancellation_shows_who_asked_and_what_is_released() -> None:
    change = {
        "order_id": ORDER,
        "change_id": "1",
        "items": (CancelledItem(product_id="prod001", quantity=2),),
        "whole": True,
    }
    events = recorded(
        (CREATED, "PENDING"),
        (CancellationRequestedEvent(**change, requested_by="山田"), "CANCELLING"),
        (RESERVED, "CANCELLING"),
        (CancellationConfirmedEvent(**change), "CANCELLING"),
        (StockReleasedEvent(**change, outcome="RELEASED"), "CANCELLED"),
    )

    lines = rendered(events)

    assert "late" not in "".join(lines)
    assert "山田 asks to cancel it" in [line.strip() for line in lines]
    assert lines[-1].strip() == "↩ compensation: releases prod001 ×2"
    assert max(map(cell_len, lines)) <= 80


def test_cancelled_pieces_are_named_and_make_no_later_event_late() -> None:
    change = {
        "order_id": ORDER,
        "change_id": "1",
        "items": (CancelledItem(product_id="prod001", quantity=1),),
        "whole": False,
    }
    events = recorded(
        (CREATED, "PENDING"),
        (CancellationRequestedEvent(**change), "PENDING"),
        (CancellationConfirmedEvent(**change), "PENDING"),
        (StockReleasedEvent(**change, outcome="NEVER_RESERVED"), "PENDING"),
        (RESERVED, "AWAITING_SHIPMENT"),
        (COMPLETED, "COMPLETED"),
    )

    lines = [line.strip() for line in rendered(events)]

    assert "late" not in "".join(lines)
    assert "a request to cancel prod001 ×1" in lines
    assert "will not be shipped: prod001 ×1" in lines
    assert "not reserved, and will not be: prod001 ×1" in lines


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (REFUSED, "CANCELLED_NO_STOCK"),
        (FAILED, "SHIPMENT_FAILED"),
        (
            StockReleasedEvent(
                order_id=ORDER, change_id="1", items=(), whole=True, outcome="RELEASED"
            ),
            "CANCELLED",
        ),
    ],
)
def test_event_that_an_order_was_cancelled_is_not_late(cause: Event, status: str) -> None:
    cancelled = OrderCancelledEvent(
        order_id=ORDER, user_id="a", status=status, reason="", items=(), total_amount=0
    )

    lines = rendered(recorded((CREATED, "PENDING"), (cause, status), (cancelled, status)))

    assert "late" not in "".join(lines)


def test_exit_code_of_an_ending_is_zero_only_for_a_completed_order() -> None:
    assert ENDINGS == {
        OrderStatus.COMPLETED: ExitCode.OK,
        OrderStatus.CANCELLED_NO_STOCK: ExitCode.NO_STOCK,
        OrderStatus.SHIPMENT_FAILED: ExitCode.SHIPMENT_FAILED,
        OrderStatus.CANCELLED: ExitCode.CANCELLED,
    }
    assert STATUS_STYLES.keys() == ENDINGS.keys()

"""Render an order's events for a terminal, with late events and compensations marked."""

from collections.abc import Iterator, Mapping

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from todoku.cli.exit_codes import ExitCode
from todoku.cli.formatting import clock_time, item_list, later, money, printable
from todoku.cli.responses import OrderEvent
from todoku.contracts import (
    EVENTS,
    Event,
    InventoryMessageParkedEvent,
    OrderCreatedEvent,
    ParkingEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageParkedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.lifecycle import name_of
from todoku.orders.domain import ORDER, OrderStatus

_EXIT_CODES = {
    OrderStatus.CANCELLED_NO_STOCK: ExitCode.NO_STOCK,
    OrderStatus.SHIPMENT_FAILED: ExitCode.SHIPMENT_FAILED,
}


def ending_of(status: OrderStatus) -> ExitCode:
    """Return the exit code for an order that ended in this status."""
    if not status.stage.failure:
        return ExitCode.OK
    return _EXIT_CODES.get(status, ExitCode.ENDED_OTHERWISE)


STEPS: Mapping[str, tuple[int, int]] = {
    name_of(cause): step for cause, step in ORDER.steps().items()
}
"""The events of a saga with their steps: an event is late after one of a higher step. Other events
occur at any time."""

AWAITED = {
    OrderCreatedEvent.__name__: "inventory to reserve the stock",
    StockReservedEvent.__name__: "shipping to create a shipment",
    ShipmentInitiatedEvent.__name__: "the carrier",
}
"""What happens next after an event."""

ENDINGS: Mapping[str, ExitCode] = {status: ending_of(status) for status in ORDER.terminal}
"""The exit code of each status in which an order has ended."""

STATUS_STYLES: Mapping[str, str] = {
    status: "bold red" if status.stage.failure else "bold green" for status in ORDER.terminal
}
SOURCE_STYLES = {"orders": "cyan", "inventory": "yellow", "shipping": "magenta"}
LATE_STYLE = "bold yellow"
COMPENSATION_STYLE = "bold magenta"
PARKED_STYLE = "bold red"

DETAIL_INDENT = 23
"""Below the source of the event: after 12 columns of time, 9 of milliseconds, and spaces."""


class SagaRenderer:
    """Renders the events of one order, in the sequence in which the orders service recorded them."""

    def __init__(self) -> None:
        self._first: OrderEvent | None = None
        self._last: OrderEvent | None = None
        self._furthest_step = (-1, 0)

    @property
    def awaited(self) -> str:
        """What the order waits for."""
        return AWAITED.get(self._last.type, "events") if self._last else "events"

    def render(self, event: OrderEvent) -> RenderableType:
        """Render the next event as a line with details below it."""
        start = self._first = self._first or event
        self._last = event
        step = STEPS.get(event.type, self._furthest_step)
        late = step < self._furthest_step
        self._furthest_step = max(step, self._furthest_step)
        return Group(_line(start, event), *map(_indented, _details(event, late)))


def _line(start: OrderEvent, event: OrderEvent) -> Text:
    """80 columns at most: 12 + 9 + 9 + 27 + 18 and the spaces between them."""
    return Text.assemble(
        (f"{clock_time(event.time)} {later(start.time, event.time):>9} ", "dim"),
        (f"{printable(event.source):<9} ", SOURCE_STYLES.get(event.source, "")),
        f"{printable(event.type):<27} ",
        (printable(event.status), STATUS_STYLES.get(event.status, "")),
    )


def _indented(text: Text) -> Padding:
    return Padding(text, (0, 0, 0, DETAIL_INDENT), expand=False)


def _details(event: OrderEvent, late: bool) -> Iterator[Text]:
    if late:
        yield Text("late: a later event of the saga was recorded before it", LATE_STYLE)
    match _event(event):
        case OrderCreatedEvent() as created:
            total = money(created.total_amount, created.currency)
            yield _detail(f"{created.user_id} orders {item_list(created.items)} for {total}")
        case StockReservedEvent(items=items):
            yield _detail(f"reserves {item_list(items)}")
        case StockReservationFailedEvent(failed_items=failed):
            for item in failed:
                requested, available = item.requested_quantity, item.available_quantity
                yield _detail(
                    f"{item.product_id}: {requested:,} requested, {available:,} available"
                )
            yield Text("not enough stock: nothing is reserved for this order", COMPENSATION_STYLE)
        case ShipmentInitiatedEvent(shipment_id=shipment_id):
            yield _detail(f"shipment {shipment_id}")
        case ShipmentCompletedEvent(tracking_number=tracking_number):
            yield _detail(f"accepted by the carrier: {tracking_number}")
        case ShipmentFailedEvent(reason=reason, items=items):
            yield _detail(reason)
            yield Text(
                f"↩ compensation: inventory releases {printable(item_list(items))}",
                COMPENSATION_STYLE,
            )

        case InventoryMessageParkedEvent() | ShippingMessageParkedEvent() as parked:
            what = f"{parked.message_type} failed ({parked.error}) and needs manual action"
            yield Text(printable(what), PARKED_STYLE)
        case ParkingEvent(message_type=message_type):
            yield _detail(f"the parked {message_type} is resolved")


def _event(event: OrderEvent) -> Event | None:
    """Decode the event; return None if this version does not know it."""
    try:
        return msgspec.json.decode(event.data, type=EVENTS[event.type])
    except (KeyError, msgspec.DecodeError):
        return None  # from a newer version: rendered without details


def _detail(text: str) -> Text:
    return Text(printable(text), "dim")

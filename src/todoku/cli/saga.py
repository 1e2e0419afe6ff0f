"""Render an order's events for a terminal, with late events and compensations marked."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE
from todoku.cli.formatting import clock_time, later, printable
from todoku.cli.responses import OrderEvent
from todoku.contracts import ChangeEvent, Event
from todoku.descriptor import resolve
from todoku.lifecycle import name_of
from todoku.narration import Detail
from todoku.orders.domain import ORDER, OrderStatus

_EXIT_CODES = {
    OrderStatus.CANCELLED_NO_STOCK: ExitCode.NO_STOCK,
    OrderStatus.SHIPMENT_FAILED: ExitCode.SHIPMENT_FAILED,
    OrderStatus.CANCELLED: ExitCode.CANCELLED,
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

_NARRATIONS = [resolve(service.narration) for service in SYSTEM_HERE]

AWAITED: Mapping[str, str] = {
    kind.__name__: next_step for each in _NARRATIONS for kind, next_step in each.awaited.items()
}
"""What happens next after an event."""

DETAILS: Mapping[type[Any], Callable[[Any], Iterable[Detail]]] = {
    kind: describe for each in _NARRATIONS for kind, describe in each.details.items()
}
"""How the events that have details are printed."""

DETAILED: Mapping[str, type[Event]] = {kind.__name__: kind for kind in DETAILS}

ENDINGS: Mapping[str, ExitCode] = {status: ending_of(status) for status in ORDER.terminal}
"""The exit code of each status in which an order has ended."""

STATUS_STYLES: Mapping[str, str] = {
    status: "bold red" if status.stage.failure else "bold green" for status in ORDER.terminal
}
SOURCE_STYLES: Mapping[str, str] = {service.name: service.colour for service in SYSTEM_HERE}
LATE_STYLE = "bold yellow"
DETAIL_STYLES = {"plain": "dim", "compensation": "bold magenta", "parked": "bold red"}

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
        data = _decoded(event)
        step = _step(event.type, data) or self._furthest_step
        late = step < self._furthest_step
        self._furthest_step = max(step, self._furthest_step)
        return Group(_line(start, event), *map(_indented, _details(data, late)))


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


def _details(data: Event | None, late: bool) -> Iterator[Text]:
    if late:
        yield Text("late: a later event of the saga was recorded before it", LATE_STYLE)
    if data is None:
        return
    for detail in DETAILS[type(data)](data):
        yield Text(printable(detail.text), DETAIL_STYLES[detail.mark])


def _step(event_type: str, data: Event | None) -> tuple[int, int] | None:
    """Return the step of an event. Pieces of an order are cancelled at any time."""
    if isinstance(data, ChangeEvent) and not data.whole:
        return None
    return STEPS.get(event_type)


def _decoded(event: OrderEvent) -> Event | None:
    """Return what an event that is printed with details says; None for others and those of newer versions."""
    kind = DETAILED.get(event.type)
    try:
        return None if kind is None else msgspec.json.decode(event.data, type=kind)
    except msgspec.DecodeError:
        return None

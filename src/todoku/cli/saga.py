"""Render an order's events for a terminal, with late events and compensations marked."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE
from todoku.cli.formatting import clock_time, later, printable
from todoku.cli.responses import OrderEvent
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

DETAILS = {
    kind.__name__: (kind, describe)
    for each in _NARRATIONS
    for kind, describe in each.details.items()
}
"""The event types that are printed with details, and how."""

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
    for detail in _narrated(event):
        yield Text(printable(detail.text), DETAIL_STYLES[detail.mark])


def _narrated(event: OrderEvent) -> Iterable[Detail]:
    """Return the details of an event; none if this version does not know it."""
    try:
        kind, describe = DETAILS[event.type]
        return describe(msgspec.json.decode(event.data, type=kind))
    except (KeyError, msgspec.DecodeError):
        return ()  # from a newer version

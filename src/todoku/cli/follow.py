"""Follow an order until it ends: poll its history, and print new events."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from todoku.cli.client import ServiceClient, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.formatting import printable
from todoku.cli.output import console, note, write_line
from todoku.cli.responses import OrderEvent, OrderHistory
from todoku.cli.saga import ENDINGS, SagaRenderer
from todoku.orders.domain import ORDER

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 2.0
PAUSE_GROWTH = 1.5

KNOWN = frozenset(status.value for status in ORDER.statuses)

TEMPORARY = (ExitCode.UNREACHABLE, ExitCode.BUSY)
"""Temporary failures of the service: polling goes on."""

Show = Callable[[bytes, OrderEvent], None]


def follow(
    client: ServiceClient, order_id: str, *, json: bool, timeout_seconds: float | None
) -> str:
    """Print an order's events as they arrive, and return its final status.

    Raises `CommandFailed` after the timeout, and if the first request fails.
    """
    status = ""
    try:
        with _as_lines() if json else _rendered() as show:
            for batch in _new_events(client, order_id, timeout_seconds):
                for raw in batch:
                    event = client.read(raw, OrderEvent)
                    show(raw, event)
                    status = event.status
                if status in ENDINGS:
                    return status
                if status and status not in KNOWN:
                    raise _unknown_status(order_id, status)
    except KeyboardInterrupt:
        note(f"order {order_id} is still processed; only the watching has stopped.")
        raise
    raise CommandFailed(
        f"order {order_id} has not ended within {timeout_seconds:g} s; its status is {status}.\n"
        f"Continue with: todoku order watch {order_id}",
        exit_code=ExitCode.NOT_ENDED,
    )


def _unknown_status(order_id: str, status: str) -> CommandFailed:
    """Whether a status of a newer version is an end cannot be known here."""
    return CommandFailed(
        f"order {order_id} has the status {printable(status)}, which this version of todoku does not "
        "know, so it cannot tell whether the order has ended.\n"
        f"Look at it with `todoku order show {order_id}`, or watch it with the version of the services.",
        exit_code=ExitCode.UNKNOWN_STATUS,
    )


@contextmanager
def _as_lines() -> Iterator[Show]:
    yield lambda raw, _: write_line(raw)


@contextmanager
def _rendered() -> Iterator[Show]:
    """Print events for people; on a terminal, with a status line below them."""
    saga, out = SagaRenderer(), console()

    def render(_: bytes, event: OrderEvent) -> None:
        out.print(saga.render(event))

    if not sys.stdout.isatty():
        yield render
        return
    with out.status("loading the events of the order") as waiting:

        def render_above(raw: bytes, event: OrderEvent) -> None:
            render(raw, event)
            waiting.update(f"waiting for {saga.awaited}")

        yield render_above


def _new_events(
    client: ServiceClient, order_id: str, timeout_seconds: float | None
) -> Iterator[list[bytes]]:
    """Yield the new events at each poll; return after the timeout."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    history, seen, pause_seconds = _History(client, order_id), 0, PAUSE_SECONDS_MIN
    while True:
        batch = history.read()[seen:]
        yield batch
        seen += len(batch)
        pause_seconds = next_pause(pause_seconds, found=bool(batch))
        if deadline is not None:
            pause_seconds = min(pause_seconds, deadline - time.monotonic())
            if pause_seconds <= 0:
                return
        time.sleep(pause_seconds)


def next_pause(seconds: float, *, found: bool) -> float:
    """Return the pause before the next poll: growing, and short again after new events."""
    return PAUSE_SECONDS_MIN if found else min(seconds * PAUSE_GROWTH, PAUSE_SECONDS_MAX)


class _History:
    """An order's history, polled; if the service fails later, polling goes on until it is back."""

    def __init__(self, client: ServiceClient, order_id: str) -> None:
        self._client = client
        self._path = f"/orders/{segment(order_id)}/events"
        self._was_available = False
        self._is_unavailable = False

    def read(self) -> list[bytes]:
        """Return the whole history, or nothing while the service is unavailable."""
        try:
            answer = self._client.get(self._path)
        except CommandFailed as failure:
            if not self._was_available or failure.exit_code not in TEMPORARY:
                raise
            self._set_unavailable(unavailable=True)
            return []
        self._was_available = True
        self._set_unavailable(unavailable=False)
        return [bytes(event) for event in self._client.read(answer, OrderHistory).items]

    def _set_unavailable(self, *, unavailable: bool) -> None:
        if unavailable != self._is_unavailable:
            self._is_unavailable = unavailable
            where = f"the orders service at {self._client.url}"
            note(f"{where} is unavailable; retrying" if unavailable else f"{where} is back")

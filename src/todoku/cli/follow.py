"""Follows an order to its end: asks for its history again and again, and shows what is new."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from todoku.cli.answers import OrderEvent, OrderHistory
from todoku.cli.client import Client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import console, say, write_line
from todoku.cli.saga import ENDINGS, Saga
from todoku.cli.words import printable
from todoku.orders.domain import ORDER

PAUSE_SECONDS_MIN = 0.1
PAUSE_SECONDS_MAX = 2.0
PAUSE_GROWTH = 1.5

KNOWN = frozenset(status.value for status in ORDER.statuses)

PASSING = (ExitCode.UNREACHABLE, ExitCode.BUSY)
"""Failures that an order outlives; so does whoever watches it."""

Show = Callable[[bytes, OrderEvent], None]


def follow(client: Client, order_id: str, *, json: bool, timeout_seconds: float | None) -> str:
    """Show an order's events as they come, until it has ended; return its status then.

    Raises `CommandFailed` when the time is up, and when the service cannot be asked at the start.
    """
    status = ""
    try:
        with _as_lines() if json else _drawn() as show:
            for news in _news(client, order_id, timeout_seconds):
                for raw in news:
                    event = client.read(raw, OrderEvent)
                    show(raw, event)
                    status = event.status
                if status in ENDINGS:
                    return status
                if status and status not in KNOWN:
                    raise _unknown_status(order_id, status)
    except KeyboardInterrupt:
        say(f"order {order_id} goes on without being watched.")
        raise
    raise CommandFailed(
        f"order {order_id} has not ended in {timeout_seconds:g} seconds; it is {status}.\n"
        f"It goes on by itself: todoku order watch {order_id}",
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
def _drawn() -> Iterator[Show]:
    """Events as lines for people; at a terminal, what is awaited stands below them."""
    saga, out = Saga(), console()

    def draw(_: bytes, event: OrderEvent) -> None:
        out.print(saga.draw(event))

    if not sys.stdout.isatty():
        yield draw
        return
    with out.status("asking for the order's history") as waiting:

        def draw_above(raw: bytes, event: OrderEvent) -> None:
            draw(raw, event)
            waiting.update(f"waiting for {saga.awaited}")

        yield draw_above


def _news(client: Client, order_id: str, timeout_seconds: float | None) -> Iterator[list[bytes]]:
    """What is new in the history, each time it was asked for; ends when the time is up."""
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    history, seen, pause_seconds = _History(client, order_id), 0, PAUSE_SECONDS_MIN
    while True:
        news = history.read()[seen:]
        yield news
        seen += len(news)
        pause_seconds = next_pause(pause_seconds, news=bool(news))
        if deadline is not None:
            pause_seconds = min(pause_seconds, deadline - time.monotonic())
            if pause_seconds <= 0:
                return
        time.sleep(pause_seconds)


def next_pause(seconds: float, *, news: bool) -> float:
    """How long to wait before asking again: longer and longer, until there is news."""
    return PAUSE_SECONDS_MIN if news else min(seconds * PAUSE_GROWTH, PAUSE_SECONDS_MAX)


class _History:
    """An order's history, read again and again; a service that goes away and comes back is awaited."""

    def __init__(self, client: Client, order_id: str) -> None:
        self._client = client
        self._path = f"/orders/{segment(order_id)}/events"
        self._was_there = False
        self._is_away = False

    def read(self) -> list[bytes]:
        """The whole history; nothing while the service is away."""
        try:
            answer = self._client.get(self._path)
        except CommandFailed as failure:
            if not self._was_there or failure.exit_code not in PASSING:
                raise
            self._notice(away=True)
            return []
        self._was_there = True
        self._notice(away=False)
        return [bytes(event) for event in self._client.read(answer, OrderHistory).items]

    def _notice(self, *, away: bool) -> None:
        if away != self._is_away:
            self._is_away = away
            where = f"the orders service at {self._client.url}"
            say(f"{where} is away; asking until it is back" if away else f"{where} is back")

"""Read the feed of all orders' events, page by page, and choose events from it."""

import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime

import msgspec

from todoku.broker.memory.subjects import matches
from todoku.cli.client import ServiceClient
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import note

PAGE_EVENTS = 1_000
WAIT_SECONDS = 25
RETRY_SECONDS = 1.0
TEMPORARY = (ExitCode.UNREACHABLE, ExitCode.BUSY)
RESTARTED = "feed-restarted"


class FeedEvent(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """An event of the feed, with the fields that filters and people read."""

    order_id: str
    type: str
    source: str
    recorded_at: datetime
    status: str


class FeedPage(msgspec.Struct, frozen=True):
    """A page of the feed; the next one begins behind `next`."""

    items: list[msgspec.Raw]
    next: str


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are wanted: those that match all that is given. `subjects` are patterns, and
    `subject_of` the subject of each type of events."""

    types: Collection[str] = ()
    orders: Collection[str] = ()
    subjects: Collection[str] = ()
    since: datetime | None = None
    subject_of: dict[str, str] = {}

    @property
    def everything(self) -> bool:
        """Return whether no filter is given."""
        return not (self.types or self.orders or self.subjects or self.since)

    def has(self, event: FeedEvent) -> bool:
        """Return whether an event matches."""
        subject = self.subject_of.get(event.type, f"{event.source}.")
        return (
            (not self.types or event.type in self.types)
            and (not self.orders or event.order_id in self.orders)
            and (not self.subjects or any(matches(each, subject) for each in self.subjects))
            and (self.since is None or event.recorded_at >= self.since)
        )


decode_event = msgspec.json.Decoder(FeedEvent).decode


def choose(page: FeedPage, wanted: Wanted) -> list[bytes]:
    """Return the events of a page that are wanted, as they were sent."""
    if wanted.everything:
        return [bytes(raw) for raw in page.items]
    return [bytes(raw) for raw in page.items if wanted.has(decode_event(raw))]


def read_all(orders: ServiceClient, beginning: dict[str, object]) -> Iterator[FeedPage]:
    """Yield pages up to the present end of the feed; the last one is empty."""
    query = beginning
    while True:
        page = orders.read(orders.get("/changes", {**query, "limit": PAGE_EVENTS}), FeedPage)
        yield page
        if not page.items:
            return
        query = {"after": page.next}


def follow(
    orders: ServiceClient,
    beginning: dict[str, object],
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[FeedPage]:
    """Yield pages for ever, as events are recorded. If the service fails later, go on when it is back."""
    query, available = beginning, None
    while True:
        try:
            wait = 0 if available is None else WAIT_SECONDS
            answer = orders.get("/changes", {**query, "limit": PAGE_EVENTS}, wait_seconds=wait)
        except CommandFailed as failure:
            if available is None or failure.exit_code not in TEMPORARY:
                raise
            if available:
                note(f"the orders service at {orders.url} is unavailable; retrying")
            available = False
            pause(RETRY_SECONDS)
            continue
        if available is False:
            note(f"the orders service at {orders.url} is back")
        available = True
        page = orders.read(answer, FeedPage)
        yield page
        query = {"after": page.next}

"""HTTP operation of the feed: every event of every order, page by page."""

from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from todoku.identity import scopes
from todoku.orders.feed_cursor import FeedCursor, parse_cursor
from todoku.orders.feed_pages import FeedEventView, feed_event_view, read_head, read_since
from todoku.orders.following import WAITING_MAX, FeedFollower
from todoku.orders.problems import FEED_RESTARTED
from todoku.web import Backend, Call, Operation, Reply, SuccessResponse
from todoku.web.fields import ALLOWED, FEED_CURSOR_PATTERN
from todoku.web.problems import DATABASE_UNAVAILABLE
from todoku.web.query import invalid_parameter

LIMIT_MAX: Final = 1_000

After = Annotated[
    str,
    Meta(
        pattern=FEED_CURSOR_PATTERN,
        description="`next` of the page before: where your copy ends. Without it, the feed is read from its "
        "beginning.",
    ),
]
Start = Annotated[
    Literal["beginning", "end"],
    Meta(
        description="Where to begin without `after`: `end` leaves out all that was recorded before."
    ),
]
Since = Annotated[
    datetime,
    Meta(
        tz=True,
        description="Begin, without `after`, before everything that was recorded at this time or later; some "
        "minutes earlier, for clocks that were set back.",
        examples=["2030-01-02T03:04:05Z"],
    ),
]
Limit = Annotated[
    int, Meta(ge=1, le=LIMIT_MAX, description="The maximum number of events.", examples=[1000])
]


class ChangesQuery(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True
):
    """Where to go on, and how far."""

    after: After | UnsetType = UNSET
    start: Start = "beginning"
    since: Since | UnsetType = UNSET
    limit: Limit = 100


class Changes(msgspec.Struct, frozen=True):
    """Events of the feed, and where to go on: `next` is to be sent as `after`. Without events, you have all
    that there are so far."""

    items: list[FeedEventView]
    next: str


def feed_operations(backend: Backend) -> list[Operation]:
    """Return the operations of the feed."""
    routes = FeedRoutes(backend)
    return [
        Operation(
            id="getChanges",
            method="GET",
            scope=scopes.ORDERS_READ,
            path="/changes",
            summary="Get the changes of all orders, one after the other",
            description=ABOUT_CHANGES,
            handle=routes.changes,
            query=ChangesQuery,
            responses=[
                SuccessResponse(
                    status=200,
                    description="The next events; none if there are no more so far.",
                    content=Changes,
                    headers={
                        "Preference-Applied": "`wait=N`, if the request asked for it with Prefer."
                    },
                )
            ],
            problems=[FEED_RESTARTED, DATABASE_UNAVAILABLE],
            waits=True,
        )
    ]


class FeedRoutes:
    """Handlers of the feed's operations."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._follower = FeedFollower(backend)

    async def changes(self, call: Call) -> Reply:
        query: ChangesQuery = call.query
        after = await self._beginning(query)
        if call.wait is None or self._follower.waiting >= WAITING_MAX:
            page, headers = await self._follower.read(after, query.limit), {}
        else:
            wait = call.wait
            page = await self._follower.wait_for(after, query.limit, wait.seconds, wait.stopping)
            headers = wait.applied
        views = [feed_event_view(entry, event) for entry, event in page.events]
        return Reply(200, Changes(views, str(page.next)), headers)

    async def _beginning(self, query: ChangesQuery) -> FeedCursor | None:
        if query.after is not UNSET:
            return read_cursor("after", query.after)
        if query.since is not UNSET:
            return await self._backend.read(read_since, query.since)
        return await self._backend.read(read_head) if query.start == "end" else None


def read_cursor(parameter: str, text: str) -> FeedCursor:
    """Return the cursor that a text names. Raises `Problem` if it names none."""
    cursor = parse_cursor(text)
    if cursor is None:
        raise invalid_parameter(parameter, f"Not {ALLOWED[FEED_CURSOR_PATTERN]}.")
    return cursor


ABOUT_CHANGES = """\
Every event of every order's history, once, in the order in which they were recorded, which never changes:
an event stands behind all that was known then. `position` counts them, 1, 2, 3, … without a gap: who has
the positions up to N has everything up to N. So a copy of all orders is kept by reading on from `next`
again and again. Store `next` together with what was read. With `Prefer: wait=N` the response comes once
there are events, after N seconds at the latest. After the orders database was restored, an `after` from
before is answered with 410: discard the copy, and start over without `after`."""

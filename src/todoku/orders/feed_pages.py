"""Read pages of the feed: the events behind a cursor, as they are shown."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection, select

from todoku.database import Query, among
from todoku.orders.domain import OrderStatus
from todoku.orders.feed import Entry, Feed
from todoku.orders.feed_cursor import FeedCursor, FeedRestarted, cursor_behind, start_of
from todoku.orders.store import (
    HistoryEntry,
    OrdersStore,
    feed,
    history_entries,
    order_items,
    orders,
)

CLOCK_MARGIN: Final = timedelta(minutes=5)


class FeedEventView(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """An event about an order, as in the order's history; `position` is its number in the feed."""

    position: int
    order_id: str
    sequence: int
    id: str
    type: str
    source: str
    actor: str | None
    cause: str | None
    time: datetime
    recorded_at: datetime
    status: OrderStatus
    data: Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]


class FeedPage(msgspec.Struct, frozen=True):
    """Events behind a cursor, each with its entry, and the cursor behind the last of them. `complete` is
    False if more are committed, and not in the feed yet."""

    events: Sequence[tuple[Entry, HistoryEntry]]
    next: FeedCursor
    complete: bool


def read_page(
    connection: Connection, after: FeedCursor | None, limit: int, feed: Feed = feed
) -> FeedPage:
    """Return up to `limit` events behind a cursor, from the first one on without a cursor. Raises
    `FeedRestarted` if the cursor is from before the database was restored."""
    epoch = OrdersStore.tables.positions.epoch(connection)
    if after is None or (after.position == 0 and after.epoch == epoch):
        entries, behind = feed.read(connection, 0, limit), start_of(epoch)
    else:
        behind = after
        entries = feed.read(connection, after.position - 1, limit + 1)
        if not entries or cursor_behind(epoch, entries.pop(0)) != after:
            raise FeedRestarted(
                f"The orders database was restored since the cursor {after} was given out: "
                "discard your copy, and start over without a cursor."
            )
    if entries:
        behind = cursor_behind(epoch, entries[-1])
    complete = len(entries) == limit or feed.oldest_arrival(connection) is None
    found = history_entries(connection, [(entry.order_id, entry.event_id) for entry in entries])
    return FeedPage(
        [(entry, found[entry.order_id, entry.event_id]) for entry in entries], behind, complete
    )


def read_head(connection: Connection) -> FeedCursor:
    """Return the cursor behind the last event of the feed."""
    epoch = OrdersStore.tables.positions.epoch(connection)
    entries = feed.read(connection, max(0, feed.head(connection) - 1), 1)
    return cursor_behind(epoch, entries[0]) if entries else start_of(epoch)


def read_since(connection: Connection, since: datetime) -> FeedCursor:
    """Return a cursor before everything that was recorded at this time or later, also if a clock was set
    back by `CLOCK_MARGIN` meanwhile."""
    epoch = OrdersStore.tables.positions.epoch(connection)
    before, end = 0, feed.head(connection)
    while before < end:
        middle = (before + end + 1) // 2
        # Not `since - CLOCK_MARGIN`, which does not exist for the first minutes of the year 1.
        if _recorded_at(connection, middle) + CLOCK_MARGIN < since:
            before = middle
        else:
            end = middle - 1
    if before == 0:
        return start_of(epoch)
    return cursor_behind(epoch, *feed.read(connection, before - 1, 1))


def _recorded_at(connection: Connection, position: int) -> datetime:
    [entry] = feed.read(connection, position - 1, 1)
    [event] = history_entries(connection, [(entry.order_id, entry.event_id)]).values()
    return event.recorded_at


class OrderFacts(msgspec.Struct, frozen=True):
    """What never changes in an order, and its events are chosen by."""

    user_id: str
    product_ids: frozenset[str]


def order_facts(connection: Connection, order_ids: Collection[str]) -> dict[str, OrderFacts]:
    """Return the facts about these orders."""
    products: dict[str, list[str]] = {order_id: [] for order_id in order_ids}
    for row in _load_products(connection, ids=list(order_ids)):
        products[row.order_id].append(row.product_id)
    return {
        row.id: OrderFacts(row.user_id, frozenset(products[row.id]))
        for row in _load_users(connection, ids=list(order_ids))
    }


_load_users = Query(select(orders.c.id, orders.c.user_id).where(among(orders.c.id, "ids")))
_load_products = Query(
    select(order_items.c.order_id, order_items.c.product_id).where(
        among(order_items.c.order_id, "ids")
    )
)


def feed_event_view(entry: Entry, event: HistoryEntry) -> FeedEventView:
    """Return an event of the feed as it is shown."""
    return FeedEventView(
        position=entry.position,
        order_id=entry.order_id,
        sequence=event.sequence,
        id=event.event_id,
        type=event.type,
        source=event.source,
        actor=event.actor,
        cause=event.cause,
        time=event.said_at,
        recorded_at=event.recorded_at,
        status=OrderStatus.stored(event.status),
        data=event.data,
    )

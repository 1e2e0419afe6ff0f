"""Simulate another system that copies all orders by the feed, and check what it gets.

F1: the feed has every event of every history, numbered without a gap, in an order that never changes, and
an event stands behind those that led to it. F2: after a restore every copy starts over.
"""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, Final

from sqlalchemy import Connection

from todoku.engine import Service
from todoku.orders.feed import EventKey, decode
from todoku.orders.feed_cursor import FeedCursor, FeedRestarted
from todoku.orders.feed_pages import FeedPage, read_page
from todoku.simulated import Scheduled, World

PAGE_MAX: Final = 20

_FEED = "SELECT position, events FROM feed ORDER BY position"
_ARRIVALS = "SELECT count(*) FROM feed_arrivals"
_EVENTS = "SELECT order_id, event_id, source, cause FROM order_events"
_EPOCH = "SELECT sequence FROM stream_positions WHERE incarnation = 'database epoch'"


class Copier:
    """Reads pages of the feed at random moments."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._cursor: FeedCursor | None = None
        self._keys: list[EventKey] = []
        self._outdated: set[int] = set()
        """The epochs of cursors from before a restore."""
        self._restores = 0

    def scheduled(self) -> Mapping[str, Scheduled]:
        """Return when pages are read."""
        return {
            "read-changes": Scheduled(
                action=self._read, mean_seconds=(1.0, 5.0, 20.0), family="feed"
            )
        }

    def restored(self) -> None:
        """Note that no cursor from before is valid any more."""
        self._restores += 1
        if self._cursor is not None:
            self._outdated.add(self._cursor.epoch)

    async def _read(self, random: Random) -> None:
        """Read a page behind the one before."""
        limit, after = random.randint(1, PAGE_MAX), self._cursor

        def page(service: Service, connection: Connection) -> FeedPage | None:
            try:
                return read_page(connection, after, limit, service.store.feed)  # type: ignore[attr-defined]
            except FeedRestarted:
                return None

        answered, found = await self.world.read(page)
        if answered and found is None:
            self._start_over()
        elif found is not None and after is self._cursor:
            self._apply(found)
            if not found.complete:
                await self.world.keep_up()

    def _start_over(self) -> None:
        if not self._restores:
            self._fail("F2", f"the cursor {self._cursor} is refused, and nothing was restored")
        self._cursor = None
        self._keys.clear()

    def _apply(self, page: FeedPage) -> None:
        """Check F1 while the copy grows."""
        for entry, _ in page.events:
            if entry.position != len(self._keys) + 1:
                problem = f"position {entry.position} follows {len(self._keys)}"
                self._fail("F1", problem, entry.order_id)
            self._keys.append((entry.order_id, entry.event_id))
        self._cursor = page.next

    def check_end(self) -> None:
        """Check F1 and F2 once the system is quiescent."""
        feed = list(self._whole_feed())
        # A copy from before a restore starts over when it is continued.
        continued = self._cursor is not None and self._cursor.epoch not in self._outdated
        if continued and self._keys != feed[: len(self._keys)]:
            self._fail("F1", "the feed lacks an event that was read from it")
        events = {
            (order, event): (source, cause)
            for order, event, source, cause in self.world.rows(_EVENTS)
        }
        for order_id, event_id in sorted(events.keys() ^ set(feed)):
            self._fail("F1", f"event {event_id} is not both in the feed and a history", order_id)
        if not self._restores:  # What is replayed is recorded in another order.
            self._check_causes(feed, events)
        epoch = next((number for (number,) in self.world.rows(_EPOCH)), 0)
        if epoch in self._outdated:
            self._fail("F2", f"the epoch {epoch} goes on after a restore")

    def _whole_feed(self) -> Iterator[EventKey]:
        """Yield the keys of all events in the feed; check their numbers."""
        position = 0
        for last, encoded in self.world.rows(_FEED):
            keys = decode(encoded)
            position += len(keys)
            if last != position:
                self._fail("F1", f"the row up to {last} has the events up to {position}")
            yield from keys
        for (count,) in self.world.rows(_ARRIVALS):
            if count:
                self._fail("F1", f"{count} batches have arrived, and are not in the feed")

    def _check_causes(self, feed: list[EventKey], events: Mapping[EventKey, Any]) -> None:
        """An event of the orders themselves stands behind its cause, and before what it has led to. Those of
        other services may overtake each other on their way."""
        place: dict[str, int] = {}
        for number, (_, event_id) in enumerate(feed):
            place.setdefault(event_id, number)
        sources = {event_id: source for (_, event_id), (source, _) in events.items()}
        for (order_id, event_id), (source, cause) in events.items():
            own = "orders" in (source, sources.get(cause))
            if own and place.get(cause, -1) > place.get(event_id, len(feed)):
                self._fail("F1", f"event {event_id} stands before its cause {cause}", order_id)

    def _fail(self, invariant: str, problem: str, *orders: str) -> None:
        self.world.fail(invariant, problem, *orders)

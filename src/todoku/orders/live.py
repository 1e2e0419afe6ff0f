"""Follow the feed together: one reader in each process tells all streams what is new.

The last events are kept for streams that are a little behind. A stream that is further behind reads the
database by itself, at the pace of its client, until it has caught up. Nothing is kept for a single stream.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import structlog

from todoku.database import DatabaseUnavailable
from todoku.orders.domain import OrderStatus
from todoku.orders.feed_cursor import FeedCursor, FeedRestarted, cursor_behind
from todoku.orders.feed_pages import FeedPage, OrderFacts, feed_event_view, order_facts, read_head
from todoku.orders.following import FeedFollower
from todoku.orders.store import HistoryEntry
from todoku.web import Backend

log = structlog.get_logger(__name__)

KEPT_MAX: Final = 500
"""How many events are kept for streams that are behind."""

PAGE: Final = 200
WAIT_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 1.0


class LiveEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of the feed, with what streams filter by; `data` is how it is shown."""

    cursor: FeedCursor
    order_id: str
    event: HistoryEntry
    facts: OrderFacts
    data: msgspec.Raw

    @property
    def status(self) -> OrderStatus:
        """Return the status of the order after the event."""
        return OrderStatus.stored(self.event.status)


class LiveFeed:
    """Reads the feed for all streams of this process, for as long as there are any."""

    def __init__(self, backend: Backend, follower: FeedFollower) -> None:
        self._backend = backend
        self._follower = follower
        self._kept: deque[LiveEvent] = deque(maxlen=KEPT_MAX)
        self._end: FeedCursor | None = None
        self._news: asyncio.Future[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._users = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedCursor]:
        """Read the feed within this context; yield the cursor behind all that was recorded before."""
        self._users += 1
        try:
            if self._reading is None:
                self._reading = asyncio.create_task(self._run(), name="live feed")
            yield await self._backend.read(read_head)
        finally:
            self._users -= 1
            if not self._users:
                self._stop()

    async def follow(self, after: FeedCursor) -> AsyncGenerator[Sequence[LiveEvent], None]:
        """Yield the events behind a cursor, as they are recorded; within `open`. Raises `FeedRestarted` if
        the database is restored."""
        while True:
            news = self._next_news()
            events = await self._behind(after)
            if events:
                yield events
                after = events[-1].cursor
            else:
                await asyncio.wait((news,))
                news.result()

    async def _behind(self, after: FeedCursor) -> Sequence[LiveEvent]:
        """Return events behind a cursor, from memory if they are there."""
        end = self._end
        if end is not None and end.epoch == after.epoch:
            if after.position >= end.position:
                return ()
            first = self._kept[0].cursor.position if self._kept else end.position + 1
            if first <= after.position + 1:
                return [each for each in self._kept if each.cursor.position > after.position]
        return await self._describe(await self._follower.read(after, PAGE))

    async def _run(self) -> None:
        """Read until no stream is left; an unexpected error ends all streams, whose clients connect again."""
        try:
            await self._read()
        except Exception as error:
            log.exception("live_feed_failed")
            self._tell(error)
            self._reading = self._end = None
            self._kept.clear()

    async def _read(self) -> None:
        """Read what is new, again and again."""
        never = asyncio.Event()
        while True:
            try:
                end = self._end or await self._backend.read(read_head)
                self._end = end
                page = await self._follower.wait_for(end, PAGE, WAIT_SECONDS, never)
                self._kept.extend(await self._describe(page))
                self._end = page.next
            except DatabaseUnavailable as error:
                log.debug("live_feed_delayed", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            except FeedRestarted as error:
                self._kept.clear()
                self._end = None
                self._tell(error)
            else:
                if page.events:
                    self._tell()

    async def _describe(self, page: FeedPage) -> list[LiveEvent]:
        ids = {entry.order_id for entry, _ in page.events}
        facts = await self._backend.read(order_facts, ids) if ids else {}
        return [
            LiveEvent(
                cursor=cursor_behind(page.next.epoch, entry),
                order_id=entry.order_id,
                event=event,
                facts=facts[entry.order_id],
                data=msgspec.Raw(msgspec.json.encode(feed_event_view(entry, event))),
            )
            for entry, event in page.events
        ]

    def _next_news(self) -> asyncio.Future[None]:
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        return self._news

    def _tell(self, error: Exception | None = None) -> None:
        """Wake all streams, with an error if they cannot go on."""
        news, self._news = self._news, None
        if news is None:
            return
        if error is None:
            news.set_result(None)
        else:
            news.set_exception(error)
            news.exception()  # It is not logged if no stream waits.

    def _stop(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        self._reading = self._end = self._news = None
        self._kept.clear()

"""Follow the feed: read what is behind a cursor, and wait for more."""

import asyncio
from typing import Final

from todoku.orders.feed import ARRIVALS_MAX
from todoku.orders.feed_cursor import FeedCursor
from todoku.orders.feed_pages import FeedPage, read_page
from todoku.orders.store import feed
from todoku.web import Backend

POLL_SECONDS: Final = 0.5
"""How often the feed is read for commits of other processes while somebody waits."""

GATHER_SECONDS: Final = 0.02
"""How long more events are gathered once there is one: a busy service is read at most 50 times a second
for each who waits."""

WAITING_MAX: Final = 100
"""How many requests wait for events at the same time at most; others are answered at once."""


class FeedFollower:
    """Reads the feed for the requests to one process."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._sequencing = asyncio.Lock()
        self.waiting = 0

    async def read(self, after: FeedCursor | None, limit: int) -> FeedPage:
        """Return up to `limit` events behind a cursor: fewer only if no more are committed."""
        page = await self._backend.read(read_page, after, limit)
        if page.complete:
            return page
        async with self._sequencing:
            while await self._backend.process.transact(feed.sequence) == ARRIVALS_MAX:
                pass
        return await self._backend.read(read_page, after, limit)

    async def wait_for(
        self, after: FeedCursor | None, limit: int, seconds: float, stopping: asyncio.Event
    ) -> FeedPage:
        """Return the events behind a cursor once there are some; none after so many seconds, or when the
        server stops."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        self.waiting += 1
        try:
            while True:
                committed = self._backend.process.commits.next()
                page = await self.read(after, limit)
                left = until - loop.time()
                if page.events or left <= 0 or stopping.is_set():
                    return page
                await self._sleep(committed, left, stopping)
        finally:
            self.waiting -= 1

    async def _sleep(
        self, committed: asyncio.Future[None], seconds: float, stopping: asyncio.Event
    ) -> None:
        """Sleep until a commit of this process, or as long as others' may go unnoticed."""
        if not self._backend.database.exclusive:
            seconds = min(seconds, POLL_SECONDS)
        stopped = asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait(
                (committed, stopped), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if committed.done():
                await asyncio.wait((stopped,), timeout=GATHER_SECONDS)
        finally:
            stopped.cancel()

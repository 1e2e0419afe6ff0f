"""Callers that wait until an entity has ended: told by a commit, never by looking into the database."""

import asyncio
from collections.abc import Iterable

WAITERS_MAX = 1_000
"""How many callers wait at the same time at most."""


class Waiters:
    """Futures by the key of an entity. Methods run on the event loop's thread."""

    def __init__(self, count_max: int = WAITERS_MAX) -> None:
        self._count_max = count_max
        self._count = 0
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return self._count

    def add(self, key: str) -> asyncio.Future[None] | None:
        """Return a future that is done once the entity has ended; None if too many wait already. Cancel
        it to wait no longer."""
        if self._count >= self._count_max:
            return None
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._waiting.setdefault(key, set()).add(waiter)
        waiter.add_done_callback(lambda done: self._remove(key, done))
        return waiter

    def tell(self, keys: Iterable[str]) -> None:
        """End the waits for these entities."""
        if not self._count:
            return
        for key in keys:
            for waiter in self._waiting.get(key, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def _remove(self, key: str, waiter: asyncio.Future[None]) -> None:
        self._count -= 1
        waiting = self._waiting[key]
        waiting.discard(waiter)
        if not waiting:
            del self._waiting[key]

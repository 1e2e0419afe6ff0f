"""Tells those who wait for news that this process has committed something."""

import asyncio


class Commits:
    """Wakes whoever waits for the next commit of this process. Methods run on the event loop's thread.

    Waiting costs the writer nothing but one look whether somebody waits.
    """

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """Return a future that is done after the next commit. Others wait for it as well, so do not cancel
        it: use `asyncio.wait`. Get it before you look, so that nothing is missed."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def tell(self) -> None:
        """Wake all who wait."""
        if self._next is not None:
            self._next.set_result(None)
            self._next = None

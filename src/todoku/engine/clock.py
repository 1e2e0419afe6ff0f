"""What time it is."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """The present instant, in UTC; never earlier than what was told before."""


class SteadyClock:
    """The wall clock at the start of the process, carried on by the monotonic one.

    A wall clock that jumps while the process runs therefore makes nothing due too early or too late.
    """

    def __init__(self) -> None:
        self._wall = datetime.now(UTC)
        self._monotonic = time.monotonic()

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=time.monotonic() - self._monotonic)

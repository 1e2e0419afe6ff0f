"""The clock of a process."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """A source of the current time."""

    def now(self) -> datetime:
        """Return the current time in UTC; never earlier than before."""


class SteadyClock:
    """The wall clock at the start of the process, advanced by the monotonic clock.

    A jump of the wall clock while the process runs makes nothing due too early or too late.
    """

    def __init__(self) -> None:
        self._wall = datetime.now(UTC)
        self._monotonic = time.monotonic()

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=time.monotonic() - self._monotonic)

"""Cursors of the feed: where a copy of it ends.

A cursor names the database's epoch, the position of the last event that its holder has, and that event. So
it is known whether the feed still has the events that were read, also if a restore of the database was not
noticed.
"""

import hashlib
import re

import msgspec

from todoku.orders.feed import Entry
from todoku.web.fields import FEED_CURSOR_PATTERN

_is_cursor = re.compile(FEED_CURSOR_PATTERN).match


class FeedRestarted(Exception):
    """The feed lacks events that the holder of a cursor has read: the database was restored since."""


class FeedCursor(msgspec.Struct, frozen=True):
    """The place behind the event at this position; `event` is a part of a hash of it."""

    epoch: int
    position: int
    event: str

    def __str__(self) -> str:
        return f"{self.epoch:x}.{self.position}.{self.event}.{self._checksum()}"

    def _checksum(self) -> str:
        """Return a checksum, which finds mistakes; whoever makes up a cursor only harms himself."""
        return _hash(f"{self.epoch:x}.{self.position}.{self.event}")


def parse_cursor(text: str) -> FeedCursor | None:
    """Return the cursor that a text names; None if it names none."""
    if _is_cursor(text) is None:
        return None
    epoch, position, event, _ = text.split(".")
    cursor = FeedCursor(int(epoch, 16), int(position), event)
    return cursor if str(cursor) == text else None


def start_of(epoch: int) -> FeedCursor:
    """Return the cursor of the beginning of the feed."""
    return FeedCursor(epoch, 0, _hash(""))


def cursor_behind(epoch: int, entry: Entry) -> FeedCursor:
    """Return the cursor of the place behind this entry."""
    return FeedCursor(epoch, entry.position, _hash(f"{entry.order_id} {entry.event_id}"))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]

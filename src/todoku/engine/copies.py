"""Marks a copy of a SQLite database: it has to be recovered when it is used, and it is paused."""

import sqlite3
from datetime import datetime
from uuid import NAMESPACE_OID, uuid5

from todoku.database import to_microseconds
from todoku.engine.pauses import SERVICE
from todoku.engine.stream_positions import MARK_COPY

BY = "todoku backup"
REASON = (
    "This database is a copy: what it would send, the system that it was copied from may have sent."
)

_HAS_PAUSES = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'pauses'"
_PAUSE = "INSERT INTO pauses (id, target, paused_at, paused_by, reason) VALUES (?, ?, ?, ?, ?)"


def mark_copy(copy: sqlite3.Connection, now: datetime) -> None:
    """Save in a copy, made `now`, that it is one. Its timers stand still from now on.

    One whose schema has no pauses yet is paused when it is migrated.
    """
    copy.execute(MARK_COPY)
    if copy.execute(_HAS_PAUSES).fetchone():
        copy.execute(_PAUSE, (pause_id(now), SERVICE, to_microseconds(now), BY, REASON))


def pause_id(now: datetime) -> str:
    """Return the id of the pause of a copy that was made at this instant."""
    return str(uuid5(NAMESPACE_OID, f"copy of {now.isoformat()}"))

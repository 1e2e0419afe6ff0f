"""The feed: every event of every history, in an order that never changes.

An event stands behind all that was known when it was recorded, so behind the causes of each decision. Two
events of other services may overtake each other on their way here, and then do so in the feed.

A row of the feed holds the events that one batch recorded, as ids: 72 bytes an event. Its position is the
number of its last event, so that all events are numbered 1, 2, 3, … without a gap.

Where one process writes, batches are committed one after another, and get their positions at once. Where
several do, a batch puts its events among the arrivals, after it has locked and read all that it needs; their
ids grow with every batch that has seen another one's results. Then one process at a time moves what is
committed into the feed, in the order of these ids. A transaction that hangs delays its own events only
(docs/decisions/0035-feeds.md).
"""

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Final

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    delete,
    event,
    func,
    insert,
    select,
    text,
)

from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    bound_idle_time,
    has_several_writers,
    table,
    to_microseconds,
)

ARRIVALS_MAX: Final = 500
"""How many arrived batches are put into the feed in one transaction."""

SEQUENCER: Final = 1
"""The row that a process locks to put batches into the feed."""

IDLE_SECONDS_MAX: Final = 5
"""How long a process that froze while it put batches into the feed keeps others from it."""

ROWS_AT_ONCE: Final = 50
"""How many rows of the feed are read at once."""

EventKey = tuple[str, str]
"""The ids of an order and of an event of its history."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event in the feed, by its position and its key."""

    position: int
    order_id: str
    event_id: str


class Feed:
    """The tables of the feed."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "feed",
            metadata,
            Column("position", Integer64, primary_key=True, autoincrement=False),
            Column("events", LargeBinary, nullable=False),
        )
        self.arrivals = table(
            "feed_arrivals",
            metadata,
            Column("id", Integer64, primary_key=True),
            Column("events", LargeBinary, nullable=False),
            Column("arrived_at", Timestamp, nullable=False),
        )
        self.sequencer = table(
            "feed_sequencer",
            metadata,
            Column("id", Integer64, primary_key=True, autoincrement=False),
        )
        event.listen(self.sequencer, "after_create", _add_sequencer)
        self.complete_at: float | None = None
        """When (`time.monotonic`) the feed was last known to have all that is committed; None where one
        process writes, which always holds."""
        feed, arrivals = self.table.c, self.arrivals.c
        self._lock_sequencer = Query(
            select(self.sequencer.c.id)
            .where(self.sequencer.c.id == SEQUENCER)
            .with_for_update(skip_locked=True)
        )
        self._append = Many(
            text(
                "INSERT INTO feed (position, events)"
                " SELECT coalesce(max(position), 0) + :count, :events FROM feed"
            )
        )
        self._arrive = Many(insert(self.arrivals))
        self._lock_arrivals = Query(
            select(arrivals.id, arrivals.events)
            .order_by(arrivals.id)
            .limit(ARRIVALS_MAX)
            .with_for_update()
        )
        self._insert = Many(insert(self.table))
        self._delete = Many(delete(self.arrivals).where(arrivals.id == bindparam("key")))
        self._rows = Query(
            select(feed.position, feed.events)
            .where(feed.position > bindparam("after"))
            .order_by(feed.position)
            .limit(ROWS_AT_ONCE)
        )
        self._head = Query(select(func.max(feed.position).label("head")))
        self._oldest = Query(select(func.min(arrivals.arrived_at).label("oldest")))

    def add(self, connection: Connection, keys: Sequence[EventKey], now: datetime) -> None:
        """Add the events that a batch has recorded. Call it when the batch has read all that it needs."""
        if not keys:
            return
        events = encode(keys)
        if has_several_writers(connection):
            self._arrive(connection, [{"events": events, "arrived_at": to_microseconds(now)}])
        else:
            self._append(connection, [{"count": len(keys), "events": events}])

    def sequence(self, connection: Connection) -> int:
        """Put batches that have arrived into the feed; return how many, at most `ARRIVALS_MAX`. Does
        nothing while another process does it."""
        bound_idle_time(connection, IDLE_SECONDS_MAX)
        if not self._lock_sequencer(connection):
            return 0
        arrived = self._lock_arrivals(connection)
        if len(arrived) < ARRIVALS_MAX:
            self.complete_at = time.monotonic()
        if not arrived:
            return 0
        position, rows = self.head(connection), []
        for row in arrived:
            position += len(decode(row.events))
            rows.append({"position": position, "events": row.events})
        self._insert(connection, rows)
        self._delete(connection, [{"key": row.id} for row in arrived])
        return len(arrived)

    def head(self, connection: Connection) -> int:
        """Return the position of the last event, 0 if there is none."""
        return self._head.scalar(connection) or 0

    def oldest_arrival(self, connection: Connection) -> datetime | None:
        """Return when the first batch arrived that is not in the feed yet."""
        found: datetime | None = self._oldest.scalar(connection)
        return found

    def read(self, connection: Connection, after: int, limit: int) -> list[Entry]:
        """Return up to `limit` entries at the positions behind this one."""
        return list(islice(self._entries(connection, after), limit))

    def _entries(self, connection: Connection, after: int) -> Iterator[Entry]:
        while rows := self._rows(connection, after=after):
            for row in rows:
                keys = decode(row.events)
                # Those up to `after` are left out: it may be in the middle of a row.
                left = keys[-(row.position - after) :]
                for n, key in enumerate(left, start=row.position - len(left) + 1):
                    yield Entry(n, *key)
                after = row.position


def _add_sequencer(created: Table, connection: Connection, **_: object) -> None:
    connection.execute(insert(created).values(id=SEQUENCER))


_ID_LENGTH: Final = 36
"""The length of a UUID."""

_IDS: Final = b"u"
_JSON: Final = b"["
"""How the two formats begin."""

_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder(list[EventKey]).decode


def encode(keys: Sequence[EventKey]) -> bytes:
    """Return the ids one after the other, or as JSON if one of them has not the length of a UUID.

    Packing them would save half of the bytes and take ten times as long.
    """
    ids = list(chain.from_iterable(keys))
    if set(map(len, ids)) != {_ID_LENGTH}:
        return _encode_json(keys)
    return _IDS + "".join(ids).encode()


def decode(events: bytes) -> list[EventKey]:
    """Return the ids that were encoded."""
    if events.startswith(_JSON):
        return _decode_json(events)
    text = events[1:].decode()
    ids = [text[n : n + _ID_LENGTH] for n in range(0, len(text), _ID_LENGTH)]
    return list(zip(ids[::2], ids[1::2], strict=True))

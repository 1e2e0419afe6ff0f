"""The engine's own tables, in every service's database."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    among,
    insert_ignoring_duplicates,
    server_time,
    table,
    to_microseconds,
    upsert,
)
from todoku.engine.api_keys import ApiKeys
from todoku.engine.audit_log.anchors import AuditAnchors
from todoku.engine.audit_log.names import AuditNames
from todoku.engine.audit_log.tables import AuditLog
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.idempotency import IdempotencyKeys
from todoku.engine.pause_tables import PausedTimers, Pauses
from todoku.engine.persons.erasures import Erasures
from todoku.engine.stream_positions import StreamPositions

STREAM = "the stream"
"""The subscriber of events that no service subscribes to: pending until the broker has stored them. No
service can have this name."""


class Inbox:
    """The transactional inbox: the ids of the events that this service has handled."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "inbox",
            metadata,
            Column("event_id", Text, primary_key=True),
            Column("received_at", Timestamp, nullable=False),
            Index("inbox_by_age", "received_at"),
            clustered=True,
        )
        self._insert = Many(insert(self.table), ("event_id", "received_at"))
        event_id = self.table.c.event_id
        self._known = Query(select(event_id).where(among(event_id, "ids")))
        self._prune = delete(self.table).where(
            self.table.c.event_id.in_(
                select(self.table.c.event_id)
                .where(self.table.c.received_at < bindparam("before"))
                .order_by(self.table.c.received_at)
                .limit(bindparam("count"))
            )
        )

    def send(self, connection: Connection, ids: Collection[str]) -> Callable[[], set[str]]:
        """Ask for these ids; return what returns those of them that have been handled."""
        if not ids:
            return set
        rows = self._known.send(connection, ids=sorted(ids))
        return lambda: {row.event_id for row in rows()}

    def add(self, connection: Connection, ids: Iterable[str], now: datetime) -> None:
        """Record that these are handled."""
        received_at = to_microseconds(now)
        self._insert(connection, [(event_id, received_at) for event_id in ids])

    def prune(self, connection: Connection, before: datetime, count: int) -> int:
        """Delete up to `count` ids received before that instant; return how many."""
        return connection.execute(self._prune, {"before": before, "count": count}).rowcount


class OutboxRow(msgspec.Struct, frozen=True, gc=False):
    """An event that is pending for at least one subscriber. `position` counts the events of its owner. The
    `traceparent` of one that was read from the database is in its body only."""

    position: int
    subject: str
    body: bytes
    traceparent: str | None = None


class PendingDelivery(msgspec.Struct, frozen=True, gc=False):
    """A new event and its subscribers."""

    event_id: str
    subject: str
    body: bytes
    readers: tuple[str, ...]
    traceparent: str | None = None


class Outbox:
    """The transactional outbox: a row for each event and subscriber, until the subscriber's receipt
    arrives. An event that no service subscribes to has one for the stream, until the broker has stored
    it.

    The owner is the process that committed the row and publishes it. Positions grow with every event
    that an owner commits, so that its unpublished events are a range.
    """

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "outbox",
            metadata,
            Column("event_id", Text, nullable=False),
            Column("reader", Text, nullable=False),
            Column("owner", Text, nullable=False),
            Column("position", Integer64, nullable=False),
            Column("subject", Text, nullable=False),
            Column("body", LargeBinary, nullable=False),
            # The time of the batch that published the event: how long it has been pending.
            Column("said_at", Timestamp, nullable=False),
            UniqueConstraint("event_id", "reader"),
            Index("outbox_by_position", "owner", "position"),
        )
        columns = self.table.c
        # An event that is published again while it is pending has one row.
        self._insert = Many(
            insert_ignoring_duplicates(self.table),
            ("event_id", "reader", "owner", "position", "subject", "body", "said_at"),
        )
        self._withdraw = Many(delete(self.table).where(columns.event_id == bindparam("withdrawn")))
        self._mark_delivered = Many(
            delete(self.table).where(
                columns.event_id == bindparam("delivered_event"),
                columns.reader == bindparam("delivered_reader"),
            ),
            ("delivered_event", "delivered_reader"),
        )
        self._mark_stored = Many(
            delete(self.table).where(
                columns.reader == bindparam("stored_reader"),
                columns.owner == bindparam("storing_owner"),
                columns.position > bindparam("stored_after"),
                columns.position <= bindparam("stored_up_to"),
            )
        )
        self._range = (
            select(columns.position, columns.subject, columns.body)
            .where(
                columns.owner == bindparam("owner"),
                columns.position > bindparam("after"),
                columns.position <= bindparam("up_to"),
            )
            .distinct()
            .order_by(columns.position)
            .limit(bindparam("count"))
        )
        self._of_others = (
            select(columns.owner, columns.position, columns.subject, columns.body)
            .where(
                columns.owner != bindparam("owner"),
                tuple_(columns.owner, columns.position)
                > tuple_(bindparam("after_owner"), bindparam("after")),
            )
            .distinct()
            .order_by(columns.owner, columns.position)
            .limit(bindparam("count"))
        )
        self._last_position = select(func.max(columns.position)).where(
            columns.owner == bindparam("owner")
        )
        self._owned = (
            select(columns.owner, func.min(columns.position), func.max(columns.position))
            .where(columns.owner.not_in(bindparam("alive", expanding=True)))
            .group_by(columns.owner)
            .order_by(columns.owner)
        )
        self._adopt = (
            update(self.table)
            .where(columns.owner == bindparam("dead"), columns.position <= bindparam("last"))
            .values(owner=bindparam("new_owner"), position=columns.position + bindparam("shift"))
        )

    def add(
        self,
        connection: Connection,
        owner: str,
        position: int,
        events: Sequence[PendingDelivery],
        now: datetime,
    ) -> list[OutboxRow]:
        """Add pending deliveries of these events, at the positions after `position`."""
        said_at = to_microseconds(now)
        rows = [
            OutboxRow(position + n, event.subject, event.body, event.traceparent)
            for n, event in enumerate(events, start=1)
        ]
        pending = [
            (event.event_id, reader, owner, row.position, event.subject, event.body, said_at)
            for event, row in zip(events, rows, strict=True)
            for reader in event.readers
        ]
        self._insert(connection, pending)
        return rows

    def withdraw(self, connection: Connection, event_ids: Iterable[str]) -> None:
        """Delete the rows of these events, for all subscribers."""
        self._withdraw(connection, [{"withdrawn": event_id} for event_id in event_ids])

    def mark_delivered(self, connection: Connection, receipts: Iterable[tuple[str, str]]) -> None:
        """Delete the rows of these (event id, subscriber); those that are not pending are ignored."""
        self._mark_delivered(connection, list(receipts))

    def mark_stored(
        self, connection: Connection, owner: str, ranges: Iterable[tuple[int, int]]
    ) -> None:
        """Delete the stream's rows at these positions (above the first, up to the second) of an owner."""
        self._mark_stored(
            connection,
            [
                {
                    "stored_reader": STREAM,
                    "storing_owner": owner,
                    "stored_after": after,
                    "stored_up_to": up_to,
                }
                for after, up_to in ranges
            ],
        )

    def between(
        self,
        connection: Connection,
        owner: str,
        after: int,
        up_to: int,
        count: int,
        reader: str | None = None,
    ) -> list[OutboxRow]:
        """Return the first `count` events pending for `reader`, or for any subscriber, with positions above
        `after` and at most `up_to`."""
        found = connection.execute(
            self._range if reader is None else self._range.where(self.table.c.reader == reader),
            {"owner": owner, "after": after, "up_to": up_to, "count": count},
        )
        return [OutboxRow(*row) for row in found]

    def of_others(
        self, connection: Connection, owner: str, after: tuple[str, int], count: int
    ) -> list[tuple[str, OutboxRow]]:
        """Return the first `count` pending events of all other owners behind this owner and position, each
        with its owner."""
        after_owner, position = after
        found = connection.execute(
            self._of_others,
            {"owner": owner, "after_owner": after_owner, "after": position, "count": count},
        )
        return [(of, OutboxRow(*row)) for of, *row in found]

    def last_position(self, connection: Connection, owner: str) -> int:
        """Return the last position of this owner's pending events, 0 if there are none."""
        return connection.scalar(self._last_position, {"owner": owner}) or 0

    def adopt(
        self, connection: Connection, new_owner: str, position: int, alive: Collection[str] | None
    ) -> int:
        """Move the rows of dead processes behind the new owner's `position`; return the new last position.

        `alive` has the owners whose rows stay; None means that there can be no other process. An owner
        that lives in spite of its lease may commit more rows meanwhile: they stay until the next time.
        """
        ranges = connection.execute(self._owned, {"alive": [new_owner, *(alive or ())]}).all()
        for dead, first, last in ranges:
            shift = position + 1 - first
            connection.execute(
                self._adopt,
                {"dead": dead, "last": last, "new_owner": new_owner, "shift": shift},
            )
            position = last + shift
        return position

    def oldest_by_reader(
        self, connection: Connection, owner: str, count: int
    ) -> list[tuple[str, int, datetime]]:
        """Return how many of the `count` oldest pending deliveries of this owner each subscriber has, and
        when the oldest of those was added."""
        columns = self.table.c
        oldest = (
            select(columns.reader, columns.said_at)
            .where(columns.owner == owner)
            .order_by(columns.position)
            .limit(count)
            .subquery()
        )
        found = connection.execute(
            select(oldest.c.reader, func.count(), func.min(oldest.c.said_at))
            .group_by(oldest.c.reader)
            .order_by(oldest.c.reader)
        )
        return [(reader, pending, since) for reader, pending, since in found]

    def backlog(self, connection: Connection) -> int:
        """Return how many (event, subscriber) pairs wait for a receipt."""
        return connection.scalar(select(func.count()).select_from(self.table)) or 0


LEASE_AHEAD_MAX = timedelta(minutes=5)
"""How much later than our own a lease may expire: a clock that was ahead wrote one that lasts longer. Until
then the events of a process that ended wait, if an earlier version wrote its lease by its own clock."""


class Leases:
    """The processes of this service that are alive. Needed only where a database has several writers.

    On PostgreSQL leases are by the clock of the server: those of the processes may differ.
    """

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "leases",
            metadata,
            Column("owner", Text, primary_key=True),
            Column("expires_at", Timestamp, nullable=False),
        )
        self._renew = upsert(self.table, ["owner"], ["expires_at"])
        expires_at = self.table.c.expires_at
        self._prune = delete(self.table).where(
            or_(expires_at < bindparam("now"), expires_at > bindparam("latest"))
        )
        self._alive = select(self.table.c.owner).order_by(self.table.c.owner)

    def renew(
        self, connection: Connection, owner: str, now: datetime, lease_seconds: float
    ) -> list[str]:
        """Extend our own lease and delete expired ones; return the owners that are alive. One that lasts
        much longer than ours counts as expired: a clock that was ahead wrote it."""
        duration = timedelta(seconds=lease_seconds)
        now = server_time(connection) or now
        connection.execute(self._renew, {"owner": owner, "expires_at": now + duration})
        connection.execute(self._prune, {"now": now, "latest": now + duration + LEASE_AHEAD_MAX})
        return list(connection.scalars(self._alive))

    def give_up(self, connection: Connection, owner: str) -> None:
        """End the lease of an owner that stops: others take over what it had at their next look."""
        connection.execute(delete(self.table).where(self.table.c.owner == owner))


class EngineTables:
    """All of the engine's tables, added to a service's own metadata."""

    def __init__(self, metadata: MetaData) -> None:
        self.inbox = Inbox(metadata)
        self.outbox = Outbox(metadata)
        self.leases = Leases(metadata)
        self.positions = StreamPositions(metadata)
        self.dead_letters = DeadLetters(metadata)
        self.idempotency_keys = IdempotencyKeys(metadata)
        self.pauses = Pauses(metadata)
        self.paused_timers = PausedTimers(metadata)
        self.audit_log = AuditLog(metadata)
        self.audit_names = AuditNames(metadata)
        self.audit_anchors = AuditAnchors(metadata)
        self.erasures = Erasures(metadata)
        self.api_keys = ApiKeys(metadata)

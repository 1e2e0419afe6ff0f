"""The engine's own tables, in every service's database."""

from collections.abc import Collection, Iterable, Sequence
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
    select,
    update,
)

from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    among,
    insert_ignoring_duplicates,
    table,
    to_microseconds,
    upsert,
)
from todoku.engine.dead_letter_tables import DeadLetters


class Inbox:
    """The ids of the events that this service has dealt with: what is here is not dealt with again."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "inbox",
            metadata,
            Column("event_id", Text, primary_key=True),
            Column("received_at", Timestamp, nullable=False),
            Index("inbox_by_age", "received_at"),
            clustered=True,
        )
        self._insert = Many(insert(self.table))
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

    def known(self, connection: Connection, ids: Collection[str]) -> set[str]:
        """Those of the ids that have been dealt with."""
        if not ids:
            return set()
        return {row.event_id for row in self._known(connection, ids=sorted(ids))}

    def add(self, connection: Connection, ids: Iterable[str], now: datetime) -> None:
        """Note that these are dealt with."""
        received_at = to_microseconds(now)
        self._insert(
            connection, [{"event_id": event_id, "received_at": received_at} for event_id in ids]
        )

    def prune(self, connection: Connection, before: datetime, count: int) -> int:
        """Forget up to `count` ids received before that instant; how many it was."""
        return connection.execute(self._prune, {"before": before, "count": count}).rowcount


class OutboxRow(msgspec.Struct, frozen=True, gc=False):
    """An event that is owed to at least one reader. `position` counts what its owner has said."""

    position: int
    subject: str
    body: bytes


class PendingDelivery(msgspec.Struct, frozen=True, gc=False):
    """A new event and those who react to it."""

    event_id: str
    subject: str
    body: bytes
    readers: tuple[str, ...]


class Outbox:
    """What this service has said and somebody has not yet receipted: a row for each event and reader.

    The owner is the process that committed the row and sends it. Positions grow with every event that
    an owner commits, so that "what have I not sent yet" is a range.
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
            Column("said_at", Timestamp, nullable=False),
            UniqueConstraint("event_id", "reader"),
            Index("outbox_by_position", "owner", "position"),
        )
        columns = self.table.c
        # A fact that is said again while it is still owed is owed once.
        self._insert = Many(insert_ignoring_duplicates(self.table))
        self._settle = Many(
            delete(self.table).where(
                columns.event_id == bindparam("settled_event"),
                columns.reader == bindparam("settled_reader"),
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
        self._last_position = select(func.max(columns.position)).where(
            columns.owner == bindparam("owner")
        )
        self._adopt = (
            update(self.table)
            .where(columns.owner == bindparam("dead"))
            .values(owner=bindparam("heir"), position=columns.position + bindparam("shift"))
        )

    def add(
        self,
        connection: Connection,
        owner: str,
        position: int,
        events: Sequence[PendingDelivery],
        now: datetime,
    ) -> list[OutboxRow]:
        """Owe these events to their readers, at the positions after `position`."""
        said_at = to_microseconds(now)
        rows = [
            OutboxRow(position + n, event.subject, event.body)
            for n, event in enumerate(events, start=1)
        ]
        pending = [
            {
                "event_id": event.event_id,
                "reader": reader,
                "owner": owner,
                "position": row.position,
                "subject": event.subject,
                "body": event.body,
                "said_at": said_at,
            }
            for event, row in zip(events, rows, strict=True)
            for reader in event.readers
        ]
        self._insert(connection, pending)
        return rows

    def settle(self, connection: Connection, receipts: Iterable[tuple[str, str]]) -> None:
        """Forget what these (event id, reader) have receipted; what is not owed is passed over."""
        pairs = [
            {"settled_event": event_id, "settled_reader": reader} for event_id, reader in receipts
        ]
        self._settle(connection, pairs)

    def between(
        self,
        connection: Connection,
        owner: str,
        after: int,
        up_to: int,
        count: int,
        reader: str | None = None,
    ) -> list[OutboxRow]:
        """The first `count` events still owed, to `reader` or to anybody, whose position is above
        `after` and at most `up_to`."""
        found = connection.execute(
            self._range if reader is None else self._range.where(self.table.c.reader == reader),
            {"owner": owner, "after": after, "up_to": up_to, "count": count},
        )
        return [OutboxRow(*row) for row in found]

    def last_position(self, connection: Connection, owner: str) -> int:
        """The last position at which this owner owes something, 0 if it owes nothing."""
        return connection.scalar(self._last_position, {"owner": owner}) or 0

    def adopt(
        self, connection: Connection, new_owner: str, position: int, alive: Collection[str] | None
    ) -> int:
        """Take over what dead processes owe, behind the heir's own `position`; the new last position.

        `alive` names the owners to leave alone; None means that there can be no other.
        """
        owner, place = self.table.c.owner, self.table.c.position
        ranges = connection.execute(
            select(owner, func.min(place), func.max(place))
            .where(owner.not_in([new_owner, *(alive or ())]))
            .group_by(owner)
            .order_by(owner)
        ).all()
        for dead, first, last in ranges:
            shift = position + 1 - first
            connection.execute(self._adopt, {"dead": dead, "heir": new_owner, "shift": shift})
            position = last + shift
        return position

    def backlog(self, connection: Connection) -> int:
        """How many (event, reader) pairs wait for a receipt."""
        return connection.scalar(select(func.count()).select_from(self.table)) or 0


class Leases:
    """Which processes of this service are alive. Needed only where a database has several writers."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "leases",
            metadata,
            Column("owner", Text, primary_key=True),
            Column("expires_at", Timestamp, nullable=False),
        )
        self._renew = upsert(self.table, ["owner"], ["expires_at"])

    def renew(
        self, connection: Connection, owner: str, now: datetime, lease_seconds: float
    ) -> list[str]:
        """Extend our own lease, end those that have run out; the owners that are alive."""
        expires_at = now + timedelta(seconds=lease_seconds)
        connection.execute(self._renew, {"owner": owner, "expires_at": expires_at})
        connection.execute(delete(self.table).where(self.table.c.expires_at < now))
        return list(connection.scalars(select(self.table.c.owner).order_by(self.table.c.owner)))


class StreamPositions:
    """How far into each life of the stream this database has come: the last place it has settled."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "stream_positions",
            metadata,
            Column("incarnation", Text, primary_key=True),
            Column("sequence", Integer64, nullable=False),
        )
        self._reach = Many(upsert(self.table, ["incarnation"], ["sequence"], growing="sequence"))
        self._reached = Query(
            select(self.table.c.sequence).where(
                self.table.c.incarnation == bindparam("incarnation")
            )
        )

    def reach(self, connection: Connection, stream_epoch: str, sequence: int) -> None:
        """Note the last place that was settled, unless another replica has come further."""
        self._reach(connection, [{"incarnation": stream_epoch, "sequence": sequence}])

    def reached(self, connection: Connection, stream_epoch: str) -> int:
        """The last place that was settled in that life of the stream; 0 if none was."""
        return self._reached.scalar(connection, incarnation=stream_epoch) or 0


class EngineTables:
    """All of the engine's tables, added to a service's own metadata."""

    def __init__(self, metadata: MetaData) -> None:
        self.inbox = Inbox(metadata)
        self.outbox = Outbox(metadata)
        self.leases = Leases(metadata)
        self.positions = StreamPositions(metadata)
        self.dead_letters = DeadLetters(metadata)

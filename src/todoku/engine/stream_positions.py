"""How far a database has handled the stream, and what else tells whether it lacks something."""

import hashlib
from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Text,
    bindparam,
    delete,
    func,
    select,
    union_all,
)

from todoku.broker.port import Progress
from todoku.database import Integer64, Many, Query, count_up, table, upsert

TIMELINE = "postgresql timeline"
"""The name under which the database's timeline is saved beside the stream's epochs."""

RECOVERY = "recovery"
"""The name under which is saved that the database may lack what it had before: `COPIED` in a backup,
`RECOVERING` from the beginning of a recovery to its end."""

COPIED = 0
RECOVERING = 1


PAUSES = "pauses published"
"""The name under which the version of what was published last about pauses is saved."""

EPOCH = "database epoch"
"""The name under which a number is saved that changes when the database may lack what it had before. Who
copies what is in the database tells by it that the copy has to start over."""


MARK_COPY = f"INSERT OR IGNORE INTO stream_positions VALUES ('{RECOVERY}', {COPIED})"
"""Saves in a copy of a SQLite database that it is one: when it is used, it has to be recovered."""


def place_in(stream_epoch: str, durable: str = "") -> str:
    """Return the name under which the place of a partition's durable in a stream epoch is saved; without one,
    that of the service."""
    return f"{stream_epoch} {durable}" if durable else stream_epoch


class StreamPositions:
    """The last sequence of each stream epoch that this database has handled, the timeline of the
    database under which it was complete, its own epoch, and whether it has to be recovered.

    Where several processes share the database, each saves the sequences that it has handled in a row of
    its own (`owner_positions`): they would wait for each other's commits in a common one. The
    database has handled the highest of them all. `stream_positions` has what no living process has written:
    the rows of dead processes are merged into it. A service that reads in partitions has such places for the
    durable of each (`place_in`).
    """

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "stream_positions",
            metadata,
            Column("incarnation", Text, primary_key=True),  # The stream epoch.
            Column("sequence", Integer64, nullable=False),
        )
        self.by_owner = table(
            "owner_positions",
            metadata,
            Column("owner", Text, primary_key=True),
            Column("stream_epoch", Text, primary_key=True),
            Column("sequence", Integer64, nullable=False),
            clustered=True,
        )
        common, owned = self.table.c, self.by_owner.c
        self._reach = Many(upsert(self.table, ["incarnation"], ["sequence"], growing="sequence"))
        self._set = Many(upsert(self.table, ["incarnation"], ["sequence"]))
        self._count_up = count_up(self.table, self.table.c.incarnation, self.table.c.sequence)
        self._reach_own = Many(
            upsert(self.by_owner, ["owner", "stream_epoch"], ["sequence"], growing="sequence")
        )
        in_epoch = select(common.sequence).where(common.incarnation == bindparam("epoch"))
        of_owners = select(owned.sequence).where(owned.stream_epoch == bindparam("epoch"))
        all_of_epoch = union_all(in_epoch, of_owners).subquery()
        self._reached = Query(select(func.max(all_of_epoch.c.sequence)))
        own_or_common = union_all(
            in_epoch, of_owners.where(owned.owner == bindparam("owner"))
        ).subquery()
        self._saved = Query(select(func.max(own_or_common.c.sequence)))
        self._dead = (
            select(owned.owner, owned.stream_epoch, owned.sequence)
            .where(owned.owner.not_in(bindparam("alive", expanding=True)))
            .order_by(owned.owner, owned.stream_epoch)
            .with_for_update(skip_locked=True)
        )
        self._delete = Many(
            delete(self.by_owner).where(
                owned.owner == bindparam("of"), owned.stream_epoch == bindparam("epoch")
            )
        )

    def advance(
        self, connection: Connection, stream_epoch: str, sequence: int, owner: str | None = None
    ) -> None:
        """Save the last handled sequence, unless a higher one is saved: in the row of its owner, or in the
        common one."""
        self.advance_all(connection, {stream_epoch: sequence}, owner)

    def advance_all(
        self, connection: Connection, places: Mapping[str, int], owner: str | None
    ) -> None:
        """Save the last handled sequence of each of these places, in one statement."""
        if owner is None:
            common = [{"incarnation": place, "sequence": at} for place, at in places.items()]
            self._reach(connection, common)
        else:
            own = [
                {"owner": owner, "stream_epoch": place, "sequence": at}
                for place, at in sorted(places.items())
            ]
            self._reach_own(connection, own)

    def begin(self, connection: Connection, stream: Progress) -> int:
        """Return the last handled sequence of the stream; save its last one where none was ever handled."""
        if self.is_new(connection):
            self.advance(connection, stream.stream_epoch, stream.last_sequence)
        return self.reached(connection, stream)

    def is_new(self, connection: Connection) -> bool:
        """Return whether this database has never handled a message of any stream."""
        epochs = self.table.c.incarnation.not_in([TIMELINE, RECOVERY, EPOCH, PAUSES])
        for rows in (select(self.table).where(epochs), select(self.by_owner)):
            if connection.scalar(select(func.count()).select_from(rows.limit(1).subquery())):
                return False
        return True

    def recovery(self, connection: Connection) -> int | None:
        """Return `COPIED` or `RECOVERING` if this database has to be recovered, else None."""
        found: int | None = self._reached.scalar(connection, epoch=RECOVERY)
        return found

    def epoch(self, connection: Connection) -> int:
        """Return the epoch of this database; 0 if it was never restored."""
        return self.get(connection, EPOCH)

    def next_version(self, connection: Connection, name: str, at_least: int) -> int:
        """Return a higher version of `name` than any before, and save it. Another process waits for this
        transaction before it gets the next one, and then sees what this one has changed."""
        connection.execute(self._count_up, {"incarnation": name, "sequence": at_least + 1})
        return self.get(connection, name)

    def begin_recovery(self, connection: Connection, epoch: int) -> None:
        """Save that a recovery has begun, and the epoch that begins with it. A crash during it begins it
        again."""
        self.advance(connection, RECOVERY, RECOVERING)
        self._set(connection, [{"incarnation": EPOCH, "sequence": epoch}])

    def end_recovery(
        self, connection: Connection, stream_epoch: str, sequence: int, durables: Iterable[str] = ()
    ) -> None:
        """Save that this database is complete up to that sequence, also of these partitions' durables."""
        connection.execute(delete(self.table).where(self.table.c.incarnation == RECOVERY))
        self.advance(connection, stream_epoch, sequence)
        for durable in durables:
            self.advance(connection, place_in(stream_epoch, durable), sequence)

    def merge_dead(self, connection: Connection, alive: Collection[str]) -> None:
        """Merge the rows of all owners that are not alive into the common ones. A row that is locked is left
        for the next time: its owner lives in spite of its lease, or another process merges it."""
        dead = connection.execute(self._dead, {"alive": list(alive)}).all()
        for _, stream_epoch, sequence in dead:
            self.advance(connection, stream_epoch, sequence)
        self._delete(connection, [{"of": of, "epoch": epoch} for of, epoch, _ in dead])

    def get(self, connection: Connection, stream_epoch: str) -> int:
        """Return the last handled sequence of that stream epoch; 0 if there is none."""
        return self._reached.scalar(connection, epoch=stream_epoch) or 0

    def saved_by(self, connection: Connection, stream_epoch: str, owner: str) -> int:
        """Return at least the last sequence that this owner has saved, and nothing that only others that live
        have handled; 0 if there is none."""
        return self._saved.scalar(connection, epoch=stream_epoch, owner=owner) or 0

    def reached(self, connection: Connection, stream: Progress, durable: str = "") -> int:
        """Return the last handled sequence of the stream, or of a partition's durable: in its epoch, or of
        what it still holds of earlier ones."""
        before = (
            min(self.get(connection, place_in(epoch, durable)), shared)
            for epoch, shared in stream.earlier_epochs.items()
        )
        return max(self.get(connection, place_in(stream.stream_epoch, durable)), *before, 0)


def new_epoch(owner: str, count: int) -> int:
    """Return a number that no other process has chosen, nor this one before, in practice: no process ever
    has the `owner` of another one."""
    return int.from_bytes(hashlib.sha256(f"{owner} {count}".encode()).digest()[:7], "big")

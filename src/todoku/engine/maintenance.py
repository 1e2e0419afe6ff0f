"""What a process writes beside its batches: its place in the stream, recovery, pruning."""

from collections.abc import Collection
from datetime import datetime

from todoku.broker.port import Progress
from todoku.engine.stream_positions import TIMELINE, new_epoch, place_in
from todoku.engine.transactions import Transactions


class Maintenance:
    """Transactions in which nothing is decided. Plain and synchronous, as the writer."""

    def __init__(self, transactions: Transactions, partition_durables: Collection[str]) -> None:
        self._transactions = transactions
        self._database = transactions.database
        self._tables = transactions.tables
        self._owner = transactions.owner
        self._partition_durables = frozenset(partition_durables)
        self._timeline_saved = False
        self._recoveries = 0

    # The place in the stream.

    def begin(self, stream: Progress) -> int:
        """Return the last handled sequence of the stream; of a service that handled nothing yet, its last
        one is saved as it."""
        with self._transactions.open() as connection:
            return self._tables.positions.begin(connection, stream)

    def begin_partition(self, stream_epoch: str, durable: str, sequence: int) -> None:
        """Save that a partition's durable, which is about to be created, begins behind that sequence."""
        with self._database.transaction() as connection:
            self._tables.positions.advance(connection, place_in(stream_epoch, durable), sequence)

    def note_position(self, place: str, sequence: int) -> None:
        """Save that everything up to that sequence is handled, if the saved position is far behind; `place`
        is that of the service or of a partition (`place_in`)."""
        handled = self._transactions.handled
        if handled.is_up_to_date(place, sequence):
            return
        with self._transactions.open() as connection:
            reached = handled.advance_if_behind(connection, place, sequence)
        handled.note_reached(place, sequence, reached)

    def leave(self) -> None:
        """Give up this process's lease, so that others need not wait until it expires."""
        with self._database.transaction() as connection:
            self._tables.leases.give_up(connection, self._owner)

    # Recovery.

    def begin_recovery(self, now: datetime) -> None:
        """Save that a recovery has begun, and with it a new epoch of the database and a new chain of the
        audit log."""
        self._recoveries += 1
        epoch = new_epoch(self._owner, self._recoveries)
        trail = self._transactions.trail
        with self._transactions.open() as connection:
            self._tables.positions.begin_recovery(connection, epoch)
            if trail is not None:
                trail.begin(connection, now, restored=True)

    def end_recovery(self, stream_epoch: str, sequence: int) -> None:
        """Save that the database is complete up to that sequence."""
        with self._transactions.open() as connection:
            self._tables.positions.end_recovery(
                connection, stream_epoch, sequence, self._partition_durables
            )
            self._transactions.persons.apply_again(connection)
        self._transactions.cache.clear()

    def save_timeline(self) -> None:
        """Save under which timeline the database is complete, once a process."""
        if self._timeline_saved:
            return
        timeline = self._database.timeline()
        if timeline is not None:
            with self._database.transaction() as connection:
                self._tables.positions.advance(connection, TIMELINE, timeline)
        self._timeline_saved = True

    # Pruning.

    def prune_inbox(self, before: datetime, count: int) -> int:
        """Delete up to `count` inbox entries received before that instant; return how many."""
        with self._database.transaction() as connection:
            return self._tables.inbox.prune(connection, before, count)

    def prune_keys(self, before: datetime, count: int) -> int:
        """Delete up to `count` idempotency keys used before that instant; return how many."""
        with self._database.transaction() as connection:
            return self._tables.idempotency_keys.prune(connection, before, count)

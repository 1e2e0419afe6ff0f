"""How far into the stream a process has handled its messages, as far as it knows what is saved."""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection

from todoku.broker.port import Delivery
from todoku.database import Database, DatabaseBroken
from todoku.engine.stream_positions import StreamPositions, place_in


class HandledPositions:
    """The sequences that this process has saved as handled, so that a restored backup can be recognised.

    A place is the stream, or a partition of it (`place_in`). Positions are advanced in a transaction, and
    count as committed with it.
    """

    def __init__(
        self,
        table: StreamPositions,
        database: Database,
        *,
        owner: str,
        lag_max: int,
        partition_durables: Collection[str] = (),
    ) -> None:
        self._table = table
        self._database = database
        self._owner = owner
        self._row_owner = None if database.exclusive else owner
        self._lag_max = lag_max
        self._partition_durables = frozenset(partition_durables)
        self._saved: dict[str, int] = {}
        self._committed: dict[str, int] = {}
        self._of_others: dict[str, int] = {}

    def advance(self, connection: Connection, handled: Iterable[Delivery]) -> None:
        """Save the last handled sequence of each stream epoch, and of each partition. A batch may hold
        messages of two epochs."""
        last: dict[tuple[str, str], int] = {}
        for delivery in handled:
            key = delivery.stream_epoch, delivery.durable
            if delivery.sequence > last.get(key, 0):
                last[key] = delivery.sequence
        advanced: dict[str, int] = {}
        for (stream_epoch, durable), sequence in last.items():
            place = place_in(stream_epoch, durable if durable in self._partition_durables else "")
            reached = self._saved.get(place)
            if reached is None:
                reached = self._table.saved_by(connection, place, self._owner)
            if sequence > max(reached, advanced.get(place, 0)):
                advanced[place] = sequence
        self._table.advance_all(connection, advanced, self._row_owner)
        self._saved |= advanced

    def is_up_to_date(self, place: str, sequence: int) -> bool:
        """Return whether the saved position is not far behind that sequence, as is known without a look."""
        return any(
            place in known and sequence <= known[place] + self._lag_max
            for known in (self._saved, self._of_others)
        )

    def advance_if_behind(self, connection: Connection, place: str, sequence: int) -> int | None:
        """Save that everything up to that sequence is handled, if the saved position is far behind; else
        return how far it is."""
        reached = self._table.get(connection, place)
        if sequence <= reached + self._lag_max:
            return reached
        self._table.advance(connection, place, sequence, self._row_owner)
        return None

    def note_reached(self, place: str, sequence: int, reached: int | None) -> None:
        """Note what `advance_if_behind` returned, once that is committed."""
        if reached is None:
            self._saved[place] = sequence
        else:
            self._of_others[place] = reached

    def forget_uncommitted(self) -> None:
        """Forget what is saved: the last transaction may not have been committed."""
        self._saved = {}

    def note_committed(self) -> None:
        """Note that the transaction was committed."""
        self._committed |= self._saved

    def require_not_gone_back(self, connection: Connection) -> None:
        """Raise `DatabaseBroken` if a shared database lacks what this process has committed: it was restored
        or replaced while the process ran, which only the start of a process recovers from."""
        if self._database.exclusive:
            return
        for place, committed in self._committed.items():
            found = self._table.saved_by(connection, place, self._owner)
            if found >= committed:
                continue
            raise DatabaseBroken(
                f"{self._database.name} has handled the stream up to {found}, and this process had committed"
                f" up to {committed}: it was restored or replaced in the meantime. The next start recovers"
                " what it lacks from the stream."
            )

"""The write transactions of a process, and what it knows about its own commits."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import Connection

from todoku.database import Database
from todoku.engine.audit_log.trail import Trail
from todoku.engine.cache import StateCache
from todoku.engine.handled_positions import HandledPositions
from todoku.engine.persons.file import ErasureFile
from todoku.engine.persons.handler import PersonHandler
from todoku.engine.service import Service, Topology
from todoku.engine.tables import STREAM, PendingDelivery
from todoku.events import NO_CONTEXT, Event, encode, fact_id, seal

CACHED_STATES_MAX = 5_000
"""How many states of each kind the cache keeps."""


class Transactions:
    """Runs the write transactions of a process, one at a time: `with transactions.open() as connection:`.

    `owner` identifies the process in the outbox. After a transaction whose result is unknown, the next one
    reads again what this process knew: its last position, its place in the stream, and the head of its audit
    log; the cache is cleared.
    """

    def __init__(
        self,
        service: Service,
        database: Database,
        topology: Topology,
        *,
        owner: str,
        position_lag_max: int,
        audit: bool,
        erasure_file: ErasureFile | None,
        partition_durables: Collection[str],
    ) -> None:
        self.database = database
        self.tables = tables = service.store.tables
        self.owner = owner
        self.position = 0
        """The position of the last event that this process has committed."""
        self.cache = StateCache(CACHED_STATES_MAX)
        self.persons = PersonHandler(service.persons, tables, erasure_file)
        self.trail = Trail(tables.audit_log, tables.audit_names, owner=owner) if audit else None
        self.handled = HandledPositions(
            tables.positions,
            database,
            owner=owner,
            lag_max=position_lag_max,
            partition_durables=partition_durables,
        )
        self._topology = topology
        self._position_certain = True

    @contextmanager
    def open(self) -> Iterator[Connection]:
        """Run a transaction; note in memory that it was committed."""
        certain, self._position_certain = self._position_certain, False
        self.persons.open_transaction()
        with self.database.transaction() as connection:
            if self.trail is not None:
                self.trail.open_transaction(connection, certain=certain)
            if not certain:
                self.handled.require_not_gone_back(connection)
                self.handled.forget_uncommitted()
                self.cache.clear()
                pending = self.tables.outbox.last_position(connection, self.owner)
                self.position = max(self.position, pending)
            yield connection
        self._position_certain = True
        if self.trail is not None:
            self.trail.committed()
        self.persons.committed()
        self.handled.note_committed()

    def publish(self, event: Event, now: datetime) -> None:
        """Publish an event that no decision has led to, in a transaction of its own."""
        with self.open() as connection:
            self.add_to_outbox(connection, [event], now)
        self.position += 1

    def add_to_outbox(self, connection: Connection, events: Sequence[Event], now: datetime) -> None:
        """Put events that no decision has led to into the outbox. The caller adds their number to `position`,
        once that is committed."""
        pending = [
            PendingDelivery(
                fact_id(event.key, event.fact),
                type(event).subject,
                encode(seal(event, now, NO_CONTEXT)),
                self._topology.readers(type(event)) or (STREAM,),
            )
            for event in events
        ]
        self.tables.outbox.add(connection, self.owner, self.position, pending, now)

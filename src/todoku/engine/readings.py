"""Metrics that are read from a database when they are scraped: by index, bounded, and not too often."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from todoku.database import Database, DatabaseError
from todoku.engine.agenda import Agenda
from todoku.engine.process import Process

log = structlog.get_logger(__name__)

Reading: TypeAlias = Callable[[Connection, datetime], Iterable[Metric]]
"""Reads metrics from a service's database, as of a time of the engine's clock. It yields each of its metrics
also where it has no values, so that they can be documented; its queries use an index and have a limit."""

KEPT_SECONDS: Final = 5.0
"""How long what was read is shown before it is read again."""

WAIT_SECONDS_MAX: Final = 2.0
"""How long a scrape waits for the database."""

STALE_SECONDS: Final = 60.0
"""How long what was read is shown while the database does not answer: old values would hide it."""

COUNTED_MAX: Final = 10_000
"""How many rows are counted at most."""

GROUPS_MAX: Final = 20
"""How many groups of dead letters are shown, the largest first."""

Query: TypeAlias = Callable[[Connection], list[Metric]]


class DatabaseMetrics(Collector):
    """What the readings have read last. `refresh` reads again, at most every `KEPT_SECONDS`, and never waits
    for longer than `WAIT_SECONDS_MAX`."""

    def __init__(
        self,
        readings: Sequence[Reading],
        read: Callable[[Query], Awaitable[list[Metric]]],
        now: Callable[[], datetime],
    ) -> None:
        self._readings = tuple(readings)
        self._read = read
        self._now = now
        self._found: list[Metric] = []
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    def collect(self) -> Iterable[Metric]:
        """Yield what was read last, and how old it is."""
        age = None if self._read_at is None else time.monotonic() - self._read_at
        ages = GaugeMetricFamily(
            "todoku_database_metrics_age_seconds",
            "How long ago the metrics that come from the database were read. They are left out after"
            f" {STALE_SECONDS:g} seconds.",
        )
        if age is not None:
            ages.add_metric([], age)
        yield ages
        if age is not None and age <= STALE_SECONDS:
            yield from self._found

    async def refresh(self) -> None:
        """Read again, unless that was done just now. A database that does not answer delays no scrape."""
        if self._read_at is not None and time.monotonic() - self._read_at < KEPT_SECONDS:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_all(), name="read metrics")
        await asyncio.wait([self._reading], timeout=WAIT_SECONDS_MAX)

    async def _read_all(self) -> None:
        now = self._now()

        def query(connection: Connection) -> list[Metric]:
            return [metric for reading in self._readings for metric in reading(connection, now)]

        try:
            found = await self._read(query)
        except DatabaseError as error:
            log.debug("metrics_not_read", error=str(error))
        else:
            self._found, self._read_at = found, time.monotonic()


def engine_readings(process: Process, database: Database) -> Sequence[Reading]:
    """Return what the engine reads from the database of a process."""
    tables = process.service.store.tables

    def outbox(connection: Connection, now: datetime) -> Iterable[Metric]:
        return _outbox(connection, now, process)

    def letters(connection: Connection, now: datetime) -> Iterable[Metric]:
        return _dead_letters(connection, now, tables.dead_letters.table)

    def due(connection: Connection, now: datetime) -> Iterable[Metric]:
        return _due(connection, now, process.service.agendas)

    def disk(connection: Connection, now: datetime) -> Iterable[Metric]:
        return _disk(database)

    return outbox, letters, due, disk


def _outbox(connection: Connection, now: datetime, process: Process) -> Iterable[Metric]:
    pending = GaugeMetricFamily(
        "todoku_outbox_pending_deliveries",
        "Events of this process for which a subscriber's receipt is awaited, by `subscriber`, of the"
        f" {COUNTED_MAX:,} oldest.",
        labels=["subscriber"],
    )
    oldest = GaugeMetricFamily(
        "todoku_outbox_oldest_pending_seconds",
        "How long ago the oldest event was committed for which a `subscriber`'s receipt is awaited; 0 if"
        " there is none.",
        labels=["subscriber"],
    )
    found = dict.fromkeys(process.relay.readers, (0, now))
    outbox = process.service.store.tables.outbox
    found |= {
        reader: (count, since)
        for reader, count, since in outbox.oldest_by_reader(
            connection, process.writer.owner, COUNTED_MAX
        )
    }
    for reader, (count, since) in sorted(found.items()):
        pending.add_metric([reader], count)
        oldest.add_metric([reader], _age(since, now))
    yield from (pending, oldest)


def _dead_letters(connection: Connection, now: datetime, letters: Any) -> Iterable[Metric]:
    columns = letters.c
    parked = (
        select(columns.error_group, columns.error, columns.parked_at)
        .where(columns.state == "PARKED")
        .order_by(columns.parked_at)
        .limit(COUNTED_MAX)
        .subquery()
    )
    count, since = connection.execute(select(func.count(), func.min(parked.c.parked_at))).one()
    yield GaugeMetricFamily(
        "todoku_dead_letters_parked",
        f"Dead letters that wait for manual action, {COUNTED_MAX:,} at most.",
        value=count,
    )
    yield GaugeMetricFamily(
        "todoku_dead_letters_oldest_seconds",
        "How long ago the oldest parked dead letter was parked; 0 if there is none.",
        value=_age(since or now, now),
    )
    groups = GaugeMetricFamily(
        "todoku_dead_letter_group_size",
        "Parked dead letters by the shape of their error: `error_group` is what `todoku dead list` calls the"
        f" group, `error_class` the class of the error. The {GROUPS_MAX} largest groups.",
        labels=["error_group", "error_class"],
    )
    size = func.count()
    found = connection.execute(
        select(parked.c.error_group, func.min(parked.c.error), size)
        .group_by(parked.c.error_group)
        .order_by(size.desc(), parked.c.error_group)
        .limit(GROUPS_MAX)
    )
    for group, error, letters_in_group in found:
        groups.add_metric([group or "", (error or "").partition(":")[0]], letters_in_group)
    yield groups


def _due(connection: Connection, now: datetime, agendas: Sequence[Agenda]) -> Iterable[Metric]:
    overdue = GaugeMetricFamily(
        "todoku_due_rows_delay_seconds",
        "How long ago the oldest due row of an `agenda` fell due that nothing has decided on; 0 if there is"
        " none. It grows while the service is paused or no effect can start.",
        labels=["agenda"],
    )
    for agenda in agendas:
        due_at = agenda.due_column
        first = select(due_at).where(due_at.is_not(None)).order_by(due_at).limit(1)
        earliest = connection.scalar(first)
        overdue.add_metric([agenda.name], _age(earliest or now, now))
    yield overdue


def _disk(database: Database) -> Iterable[Metric]:
    free = GaugeMetricFamily(
        "todoku_disk_free_bytes",
        "Free space on the disk of the SQLite database. PostgreSQL's is unknown here.",
    )
    if (found := database.free_bytes()) is not None:
        free.add_metric([], found)
    yield free


def _age(since: datetime, now: datetime) -> float:
    return max(0.0, (now - since).total_seconds())

"""The table of the audit log, in every service's database. Rows are added, and never changed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    Column,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    Text,
    bindparam,
    func,
    insert,
    literal,
    select,
    tuple_,
)

from todoku.database import Integer64, Many, Query, Timestamp, table
from todoku.engine.audit_log.check import ChainRow
from todoku.engine.audit_log.entries import Head

SAID = (
    "operation",
    "outcome",
    "actor",
    "key_id",
    "subject",
    "about",
    "trace_id",
    "source",
    "times",
)
"""The columns of what a row says, in the order in which they are hashed, behind chain, sequence and time."""


ROWS_READ = 1_000
"""How many rows are read at once when all are."""


class AuditRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of the audit log. `actor`, `about` and `source` are digests, which `AuditNames` resolves."""

    chain: str
    sequence: int
    at: datetime
    operation: str
    outcome: str
    actor: str | None
    key_id: str | None
    subject: str | None
    about: str | None
    trace_id: str | None
    source: str | None
    times: int

    @property
    def digests(self) -> set[str]:
        """Return the digests in it."""
        return {each for each in (self.actor, self.about, self.source) if each is not None}


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which rows to list: `actor` is a digest."""

    actor: str | None = None
    operation: str | None = None
    outcome: str | None = None
    subject: str | None = None


class AuditLog:
    """The rows of all chains of a service."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "audit_log",
            metadata,
            Column("chain", Text, primary_key=True),
            Column("sequence", Integer64, primary_key=True),
            Column("at", Timestamp, nullable=False),
            Column("operation", Text, nullable=False),
            Column("outcome", Text, nullable=False),
            Column("actor", Text),
            Column("key_id", Text),
            Column("subject", Text),
            Column("about", Text),
            Column("trace_id", Text),
            Column("source", Text),
            Column("times", Integer64, nullable=False),
            Column("hash", LargeBinary, nullable=False),
            Index("audit_log_by_time", "at"),
            Index("audit_log_by_subject", "subject"),
            clustered=True,
        )
        columns = self.table.c
        # A row that exists is never overwritten: a duplicate is an error.
        self.insert = Many(insert(self.table))
        self._head = Query(
            select(columns.sequence, columns.hash)
            .where(columns.chain == bindparam("of_chain"))
            .order_by(columns.sequence.desc())
            .limit(1)
        )
        self._latest_chain = Query(select(func.max(columns.chain)))
        self._chain_before = Query(
            select(func.max(columns.chain)).where(columns.chain < bindparam("before"))
        )
        self._shown = select(*(columns[name] for name in AuditRow.__struct_fields__))
        self._hashed = select(
            columns.chain,
            columns.sequence,
            columns.at,
            *(columns[name] for name in SAID),
            columns.hash,
        ).order_by(columns.chain, columns.sequence)

    def head(self, connection: Connection, chain: str) -> Head:
        """Return the last row of a chain; before the first one if there is none."""
        found = self._head(connection, of_chain=chain)
        return Head(chain, *found[0]) if found else Head(chain)

    def heads(self, connection: Connection, count: int) -> list[Head]:
        """Return where the latest `count` chains end, the latest first."""
        found: list[Head] = []
        chain = self._latest_chain.scalar(connection)
        while chain is not None and len(found) < count:
            found.append(self.head(connection, chain))
            chain = self._chain_before.scalar(connection, before=chain)
        return found

    def begins(self, connection: Connection) -> list[ChainRow]:
        """Return the first row of each chain."""
        first = self._hashed.where(self.table.c.sequence == 1)
        return [_chain_row(row) for row in connection.execute(first)]

    def rows(self, connection: Connection) -> Iterator[ChainRow]:
        """Yield every row, by chain and sequence."""
        streamed = self._hashed.execution_options(yield_per=ROWS_READ)
        for row in connection.execute(streamed):
            yield _chain_row(row)

    def page(
        self,
        connection: Connection,
        chosen: AuditFilter,
        *,
        before: tuple[datetime, str, int] | None = None,
        limit: int,
    ) -> list[AuditRow]:
        """Return up to `limit` rows, the latest first, earlier than the (time, chain, sequence) `before`."""
        columns = self.table.c
        order = columns.at, columns.chain, columns.sequence
        query = self._shown.order_by(*(each.desc() for each in order)).limit(limit)
        for name, wanted in msgspec.structs.asdict(chosen).items():
            if wanted is not None:
                query = query.where(columns[name] == wanted)
        if before is not None:
            at, chain, sequence = before
            query = query.where(tuple_(*order) < tuple_(literal(at, Timestamp), chain, sequence))
        return [AuditRow(**row._mapping) for row in connection.execute(query)]


def _chain_row(row: Sequence[Any]) -> ChainRow:
    chain, sequence, at, *rest, digest = row
    return ChainRow(chain, sequence, at, tuple(rest), digest)


def said(values: Mapping[str, Any]) -> Sequence[Any]:
    """Return what a row says, in the order in which it is hashed."""
    return [values[name] for name in SAID]

"""The tables of dead letters and of the attempts at them, in every service's database."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Index,
    LargeBinary,
    MetaData,
    Row,
    Select,
    Text,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)

from todoku.database import (
    Integer64,
    Query,
    Timestamp,
    among,
    insert_ignoring_duplicates,
    table,
    upsert,
)
from todoku.engine.dead_letters import (
    HOLDING,
    REPLAY_FAILED,
    Attempt,
    DeadLetter,
    DeadLetterState,
    shape,
)


class LetterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A letter as shown in lists, without its body."""

    id: str
    state: DeadLetterState
    key: str | None
    event_type: str | None
    error: str | None
    error_group: str | None
    attempts: int
    parked_at: datetime
    retry_at: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None
    replaces: str | None
    replaced_by: str | None

    @property
    def error_class(self) -> str:
        """Return the class of the last error."""
        return (self.error or "").partition(":")[0]


class LetterGroup(msgspec.Struct, frozen=True):
    """Parked letters whose errors have one shape: how many, for how many keys, since when (UTC)."""

    id: str
    shape: str
    letters: int
    keys: int
    first_parked_at: datetime
    last_parked_at: datetime


class DeadLetters:
    """The parked messages and every attempt at them. Nothing is ever deleted."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "dead_letters",
            metadata,
            Column("id", Text, primary_key=True),
            Column("subject", Text, nullable=False),
            Column("body", LargeBinary, nullable=False),
            Column("headers", Text),
            Column("event_id", Text),
            Column("event_type", Text),
            Column("order_id", Text),
            Column("parked_at", Timestamp, nullable=False),
            Column("attempts", Integer64, nullable=False),
            Column("error", Text),
            Column("traceback", Text),
            Column("error_group", Text),
            Column("state", Text, nullable=False),
            Column("retry_at", Timestamp),
            Column("retry_by", Text),
            Column("closed_at", Timestamp),
            Column("closed_by", Text),
            Column("reason", Text),
            Column("replaces", Text),
            Column("replaced_by", Text),
            CheckConstraint("attempts >= 1", name="attempts_positive"),
            CheckConstraint(
                "state IN ('PARKED', 'RETRIED', 'EDITED', 'DISCARDED')", name="state_known"
            ),
            CheckConstraint("(state = 'PARKED') = (closed_at IS NULL)", name="closed_once"),
            CheckConstraint("state <> 'PARKED' OR error IS NOT NULL", name="parked_for_a_fault"),
            CheckConstraint("state = 'PARKED' OR retry_at IS NULL", name="only_parked_retried"),
            CheckConstraint(
                "(state = 'EDITED') = (replaced_by IS NOT NULL)", name="edited_replaced"
            ),
            CheckConstraint(
                "state <> 'DISCARDED' OR (reason IS NOT NULL AND closed_by IS NOT NULL)",
                name="discarded_for_a_reason",
            ),
            Index("dead_letters_by_order", "order_id"),
            Index("dead_letters_by_state", "state", "parked_at", "id"),
            Index(
                "dead_letters_to_retry",
                "retry_at",
                sqlite_where=text("retry_at IS NOT NULL"),
                postgresql_where=text("retry_at IS NOT NULL"),
            ),
        )
        self.attempts = table(
            "dead_letter_attempts",
            metadata,
            Column("id", Integer64, primary_key=True),
            Column("letter_id", Text, nullable=False),
            Column("at", Timestamp, nullable=False),
            Column("error", Text),
            Column("asked_by", Text),
            Index("dead_letter_attempts_by_letter", "letter_id"),
        )
        columns = self.table.c
        self._insert = insert_ignoring_duplicates(self.table)
        self._replace = upsert(
            self.table, ["id"], [column.name for column in columns if column is not columns.id]
        )
        self._insert_attempts = insert(self.attempts)
        self._find = (
            select(self.table)
            .where(columns.id.in_(bindparam("ids", expanding=True)))
            .order_by(columns.id)
            .with_for_update()
        )
        self._parked_about = Query(
            self._summaries().where(
                among(columns.order_id, "ids"), columns.state == DeadLetterState.PARKED.value
            )
        )
        self._next_retry_at = select(func.min(columns.retry_at)).where(
            columns.retry_at.is_not(None)
        )
        self._schedule = (
            update(self.table)
            .where(columns.id == bindparam("key"))
            .values(retry_at=bindparam("retry_at"), retry_by=bindparam("retry_by"))
        )

    def park(
        self, connection: Connection, letters: Sequence[DeadLetter], attempts: Iterable[Attempt]
    ) -> None:
        """Insert new letters and attempts; a letter that exists stays unchanged."""
        if letters:
            connection.execute(self._insert, [_row(letter) for letter in letters])
        self._add_attempts(connection, attempts)

    def replace(
        self, connection: Connection, letters: Sequence[DeadLetter], attempts: Iterable[Attempt]
    ) -> None:
        """Save changed letters and new attempts."""
        if letters:
            connection.execute(self._replace, [_row(letter) for letter in letters])
        self._add_attempts(connection, attempts)

    def find(self, connection: Connection, ids: Collection[str]) -> dict[str, DeadLetter]:
        """Load and lock those of these letters that exist."""
        if not ids:
            return {}
        found = connection.execute(self._find, {"ids": sorted(ids)})
        return {row.id: _letter(row) for row in found}

    def schedule(
        self,
        connection: Connection,
        group: str | None,
        now: datetime,
        per_second: float,
        by: str | None,
    ) -> int:
        """Schedule retries of all parked letters, or of one group, the oldest first, `per_second` from
        now on; return how many."""
        columns = self.table.c
        parked = select(columns.id).where(columns.state == DeadLetterState.PARKED.value)
        if group is not None:
            parked = parked.where(columns.error_group == group)
        oldest_first = parked.order_by(columns.parked_at, columns.id).with_for_update()
        ids = connection.scalars(oldest_first).all()
        if ids:
            connection.execute(
                self._schedule,
                [
                    {
                        "key": key,
                        "retry_at": now + timedelta(seconds=n / per_second),
                        "retry_by": by,
                    }
                    for n, key in enumerate(ids)
                ],
            )
        return len(ids)

    def to_retry(
        self, connection: Connection, now: datetime, count: int
    ) -> list[tuple[str, str | None]]:
        """Return up to `count` letters whose retry is due, the oldest first: their ids, and who asked."""
        columns = self.table.c
        found = connection.execute(
            select(columns.id, columns.retry_by)
            .where(columns.retry_at <= now)
            .order_by(columns.retry_at)
            .limit(count)
        )
        return [(letter_id, by) for letter_id, by in found]

    def next_retry_at(self, connection: Connection) -> datetime | None:
        """Return when the next retry is due, or None."""
        found: datetime | None = connection.scalar(self._next_retry_at)
        return found

    def holding(self, connection: Connection, classes: Collection[str] = HOLDING) -> list[str]:
        """Return the ids of the letters that hold the recovery, the oldest first: those with errors of
        these classes."""
        columns = self.table.c
        found = connection.scalars(
            select(columns.id)
            .where(columns.state == DeadLetterState.PARKED.value, self._failed_with(classes))
            .order_by(columns.parked_at, columns.id)
        )
        return list(found)

    def held_keys(self, connection: Connection) -> frozenset[str]:
        """Return the keys of what could not be replayed and was discarded: nothing is decided on them."""
        columns = self.table.c
        found = connection.scalars(
            select(columns.order_id).where(
                columns.state == DeadLetterState.DISCARDED.value, self._failed_with([REPLAY_FAILED])
            )
        )
        return frozenset(key for key in found if key is not None)

    def _failed_with(self, classes: Collection[str]) -> ColumnElement[bool]:
        return or_(*(self.table.c.error.startswith(f"{name}:") for name in classes))

    def get(self, connection: Connection, letter_id: str) -> DeadLetter | None:
        """Return the letter with this id, or None."""
        row = connection.execute(select(self.table).where(self.table.c.id == letter_id)).first()
        return None if row is None else _letter(row)

    def parked_about(self, connection: Connection, keys: Collection[str]) -> list[LetterSummary]:
        """Return the letters about these keys that are still parked."""
        return [_summary(row) for row in self._parked_about(connection, ids=sorted(keys))]

    def attempts_at(self, connection: Connection, letter_id: str) -> list[Attempt]:
        """Return the attempts at a letter, in order."""
        columns = self.attempts.c
        found = connection.execute(
            select(columns.letter_id, columns.at, columns.error, columns.asked_by)
            .where(columns.letter_id == letter_id)
            .order_by(columns.id)
        )
        return [Attempt(**row) for row in found.mappings()]

    def page(
        self,
        connection: Connection,
        *,
        state: DeadLetterState | None,
        key: str | None,
        group: str | None,
        before: tuple[datetime, str] | None,
        limit: int,
    ) -> list[LetterSummary]:
        """Return up to `limit` letters, the last parked first, behind the one parked `before` with that
        id."""
        columns = self.table.c
        query = self._summaries().order_by(columns.parked_at.desc(), columns.id.desc()).limit(limit)
        if state is not None:
            query = query.where(columns.state == state.value)
        if key is not None:
            query = query.where(columns.order_id == key)
        if group is not None:
            query = query.where(columns.error_group == group)
        if before is not None:
            place = tuple_(literal(before[0], Timestamp), before[1])
            query = query.where(tuple_(columns.parked_at, columns.id) < place)
        return [_summary(row) for row in connection.execute(query)]

    def groups(self, connection: Connection) -> list[LetterGroup]:
        """Return the parked letters grouped by the shape of their errors, the largest group first."""
        columns = self.table.c
        count = func.count()
        found = connection.execute(
            select(
                columns.error_group,
                func.min(columns.error),
                count,
                func.count(columns.order_id.distinct()),
                func.min(columns.parked_at),
                func.max(columns.parked_at),
            )
            .where(columns.state == DeadLetterState.PARKED.value)
            .group_by(columns.error_group)
            .order_by(count.desc(), columns.error_group)
        )
        return [LetterGroup(group, shape(error), *figures) for group, error, *figures in found]

    def _summaries(self) -> Select[Any]:
        return select(*(self.table.c[_column(name)] for name in LetterSummary.__struct_fields__))

    def _add_attempts(self, connection: Connection, attempts: Iterable[Attempt]) -> None:
        if rows := [msgspec.structs.asdict(attempt) for attempt in attempts]:
            connection.execute(self._insert_attempts, rows)


def _letter(row: Row[Any]) -> DeadLetter:
    values = {_field(name): value for name, value in row._mapping.items()}
    return DeadLetter(**{**values, "state": DeadLetterState(row.state)})


def _summary(row: Sequence[Any]) -> LetterSummary:
    values = dict(zip(LetterSummary.__struct_fields__, row, strict=True))
    return LetterSummary(**{**values, "state": DeadLetterState(values["state"])})


def _row(letter: DeadLetter) -> dict[str, Any]:
    values = {_column(name): value for name, value in msgspec.structs.asdict(letter).items()}
    return {**values, "state": letter.state.value}


def _column(field: str) -> str:
    """Return the column of a letter's field; the key's is called by what it was in the first release."""
    return "order_id" if field == "key" else field


def _field(column: str) -> str:
    return "key" if column == "order_id" else column

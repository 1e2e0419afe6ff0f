"""The tables of pauses, and of the timers that were set during one, in every service's database."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    Text,
    bindparam,
    delete,
    insert,
    literal,
    select,
    text,
    tuple_,
    update,
)

from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    among,
    table,
    to_microseconds,
    upsert,
)
from todoku.engine.pauses import PauseRecord, PauseState

_FIELDS = PauseRecord.__struct_fields__
_CHANGING = ("resumed_at", "resumed_by", "rate", "next_at", "through_at")


class Pauses:
    """The pauses of a service. Nothing is ever deleted."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "pauses",
            metadata,
            Column("id", Text, primary_key=True),
            Column("target", Text, nullable=False),
            Column("paused_at", Timestamp, nullable=False),
            Column("paused_by", Text, nullable=False),
            Column("reason", Text, nullable=False),
            Column("resumed_at", Timestamp),
            Column("resumed_by", Text),
            Column("rate", Integer64),
            Column("next_at", Timestamp),
            Column("through_at", Timestamp),
            CheckConstraint(
                "(resumed_at IS NULL) = (resumed_by IS NULL)", name="resumed_by_somebody"
            ),
            CheckConstraint("rate IS NULL OR resumed_at IS NOT NULL", name="rate_of_resume"),
            CheckConstraint("rate IS NULL OR rate BETWEEN 1 AND 1000", name="rate_in_range"),
            CheckConstraint(
                "through_at IS NULL OR resumed_at IS NOT NULL", name="through_after_resume"
            ),
            Index(
                "pauses_open",
                "paused_at",
                sqlite_where=text("through_at IS NULL"),
                postgresql_where=text("through_at IS NULL"),
            ),
        )
        columns = self.table.c
        order = columns.paused_at, columns.id
        self._rows = select(*(columns[name] for name in _FIELDS))
        self._open = Query(self._rows.where(columns.through_at.is_(None)).order_by(*order))
        self._lock = Query(
            self._rows.where(among(columns.id, "ids"), columns.through_at.is_(None))
            .order_by(columns.id)
            .with_for_update()
        )
        self._insert = insert(self.table)
        self._update = Many(
            update(self.table)
            .where(columns.id == bindparam("pause_id"))
            .values({name: bindparam(f"new_{name}") for name in _CHANGING})
        )

    def open(self, connection: Connection) -> list[PauseRecord]:
        """Return the pauses that are not through, the oldest first."""
        return [_record(row) for row in self._open(connection)]

    def lock(self, connection: Connection, ids: Collection[str]) -> list[PauseRecord]:
        """Return those of the pauses that are not through; lock them where others may change them."""
        return [_record(row) for row in self._lock(connection, ids=sorted(ids))]

    def get(self, connection: Connection, pause_id: str) -> PauseRecord | None:
        """Return a pause, None if there is none with this id."""
        row = connection.execute(self._rows.where(self.table.c.id == pause_id)).first()
        return None if row is None else _record(row)

    def add(self, connection: Connection, pause: PauseRecord) -> None:
        """Add a pause."""
        connection.execute(self._insert, msgspec.structs.asdict(pause))

    def replace(self, connection: Connection, pauses: Iterable[PauseRecord]) -> None:
        """Save pauses that have changed."""
        self._update(connection, [_changes(pause) for pause in pauses])

    def page(
        self,
        connection: Connection,
        *,
        state: PauseState | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int,
    ) -> list[PauseRecord]:
        """Return up to `limit` pauses, the latest first, earlier than the (time, id) `before`."""
        columns = self.table.c
        query = self._rows.order_by(columns.paused_at.desc(), columns.id.desc()).limit(limit)
        if state is not None:
            query = query.where(*self._in_state(state))
        if before is not None:
            place = tuple_(literal(before[0], Timestamp), before[1])
            query = query.where(tuple_(columns.paused_at, columns.id) < place)
        return [_record(row) for row in connection.execute(query)]

    def _in_state(self, state: PauseState) -> Sequence[ColumnElement[bool]]:
        resumed_at, through_at = self.table.c.resumed_at, self.table.c.through_at
        match state:
            case PauseState.PAUSED:
                return (resumed_at.is_(None),)
            case PauseState.RESUMING:
                return resumed_at.is_not(None), through_at.is_(None)
            case PauseState.RESUMED:
                return (through_at.is_not(None),)


class PausedTimers:
    """When timers were set that were set while their agenda was paused: they stand still since then, all
    others since the beginning of the pause."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "paused_timers",
            metadata,
            Column("agenda", Text, primary_key=True),
            Column("timer", Text, primary_key=True),
            Column("set_at", Timestamp, nullable=False),
            clustered=True,
        )
        self._note = Many(upsert(self.table, ["agenda", "timer"], ["set_at"]))
        self._forget = delete(self.table).where(self.table.c.agenda == bindparam("of_agenda"))

    def note(
        self, connection: Connection, timers: Mapping[str, Collection[str]], now: datetime
    ) -> None:
        """Note that these timers of agendas, by their names, are set now."""
        set_at = to_microseconds(now)
        rows = [
            {"agenda": agenda, "timer": timer, "set_at": set_at}
            for agenda, keys in sorted(timers.items())
            for timer in sorted(keys)
        ]
        self._note(connection, rows)

    def forget(self, connection: Connection, agenda: str) -> None:
        """Forget the timers of an agenda that is paused no longer."""
        connection.execute(self._forget, {"of_agenda": agenda})


def _record(row: Sequence[Any]) -> PauseRecord:
    return PauseRecord(**dict(zip(_FIELDS, row, strict=True)))


def _changes(pause: PauseRecord) -> dict[str, Any]:
    return {
        "pause_id": pause.id,
        "new_resumed_at": to_microseconds(pause.resumed_at),
        "new_resumed_by": pause.resumed_by,
        "new_rate": pause.rate,
        "new_next_at": to_microseconds(pause.next_at),
        "new_through_at": to_microseconds(pause.through_at),
    }

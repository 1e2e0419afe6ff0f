"""Agendas: rows on which a service decides of its own accord when their time has come."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic

import msgspec
from sqlalchemy import Column, Connection, Text, bindparam, func, null, select, update
from typing_extensions import TypeVar

from todoku.database import Many, Query, Timestamp
from todoku.engine.messages import Due
from todoku.events import NO_CONTEXT, Context

DUE_MAX = 200
"""How many due rows of one agenda a batch decides on at most."""

POSTPONED_SECONDS = 60.0
"""How long a due row is postponed after its decision has failed."""

LOOK_BEHIND_SECONDS = 1.0
"""How long until the writer looks for due rows behind postponed ones."""

CONTEXT_COLUMN = "context"

S = TypeVar("S", default=Any)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Context).decode


def context_column() -> Column[str]:
    """Return the column in which the engine keeps the context of a row of an agenda, as JSON."""
    return Column(CONTEXT_COLUMN, Text)


class Agenda(Generic[S]):
    """Rows with a due time, on which `decide` decides when that time has come.

    `due_at` is the column with the due time, NULL in a row that never falls due; index it. `key` is
    the column that names a row: `Due.key`. `due_at_of` returns the due time of a state, None if it has
    none or if it is no state of this agenda; `key_of` returns its key. With `starts_effects`, no more
    rows are taken than there are free effect slots; without, rows are due whatever effects run.

    If the table has a `context_column()`, the context in which a row became due is kept in it, and its
    decision, events and effects have that context, also after a restart.
    """

    def __init__(
        self,
        *,
        due_at: Column[Any],
        key: Column[str],
        decide: Callable[[S, datetime], tuple[S, Sequence[object]]],
        due_at_of: Callable[[Any], datetime | None],
        key_of: Callable[[S], str],
        starts_effects: bool = False,
    ) -> None:
        self.decide = decide
        self.due_at_of = due_at_of
        self.key_of = key_of
        self.starts_effects = starts_effects
        self.name = str(due_at)
        context = due_at.table.c.get(CONTEXT_COLUMN)
        self._find = Query(
            select(key, null().label(CONTEXT_COLUMN) if context is None else context)
            .where(due_at <= bindparam("now", type_=Timestamp))
            .order_by(due_at, key)
            .limit(bindparam("count"))
            .with_for_update(skip_locked=True)
        )
        self._next = Query(select(func.min(due_at)).where(due_at.is_not(None)))
        self._keep = context is not None and Many(
            update(due_at.table)
            .where(key == bindparam("due_key"))
            .values({CONTEXT_COLUMN: bindparam("due_context")})
        )

    def find(self, connection: Connection, now: datetime, count: int) -> list[Due]:
        """Return up to `count` due rows, the oldest first; lock them where others may take them too."""
        found = self._find(connection, now=now, count=count)
        return [Due(key, self, _read_context(kept)) for key, kept in found]

    def next_due_at(self, connection: Connection) -> datetime | None:
        """Return when the next row is due, None if none will be."""
        due_at: datetime | None = self._next.scalar(connection)
        return due_at

    def keep_contexts(self, connection: Connection, contexts: dict[str, Context]) -> None:
        """Save the contexts in which rows became due, by their keys."""
        if self._keep and contexts:
            self._keep(
                connection,
                [
                    {"due_key": key, "due_context": _encode(context).decode()}
                    for key, context in contexts.items()
                ],
            )


def _read_context(kept: str | None) -> Context:
    if kept is None:
        return NO_CONTEXT
    try:
        return _decode(kept)
    except msgspec.DecodeError:  # Somebody has edited it: a row is not lost for that.
        return NO_CONTEXT


class DueTimes(msgspec.Struct, frozen=True):
    """When (UTC) the next row is due: of agendas that start effects, and of the others."""

    effects_at: datetime | None = None
    others_at: datetime | None = None


class DueRows:
    """The due rows of a service's agendas, except those that are postponed after a failure."""

    def __init__(self, agendas: Sequence[Agenda], due_max: int = DUE_MAX) -> None:
        self._agendas = agendas
        self._due_max = due_max
        self._postponed: dict[tuple[str, str], datetime] = {}

    def find(self, connection: Connection, now: datetime, effect_slots: int) -> list[Due]:
        """Return what is due: at most `effect_slots` rows of agendas that start effects."""
        if not self._agendas:
            return []
        if self._postponed:
            self._postponed = {key: at for key, at in self._postponed.items() if at > now}
        found: list[Due] = []
        for agenda in self._agendas:
            limit = min(effect_slots, self._due_max) if agenda.starts_effects else self._due_max
            rows = self._find(agenda, connection, now, limit)
            found += rows
            if agenda.starts_effects:
                effect_slots -= len(rows)
        return found

    def postpone(self, due: Due, now: datetime) -> None:
        """Leave out a row for a while, because its decision has failed."""
        self._postponed[due.agenda.name, due.key] = now + timedelta(seconds=POSTPONED_SECONDS)

    def next_due(self, connection: Connection, now: datetime) -> DueTimes:
        """Return when to look for due rows next."""
        times: dict[bool, datetime | None] = {True: None, False: None}
        for agenda in self._agendas:
            due_at = self._next_due_at(agenda, connection, now)
            times[agenda.starts_effects] = earlier(times[agenda.starts_effects], due_at)
        return DueTimes(effects_at=times[True], others_at=times[False])

    def _find(self, agenda: Agenda, connection: Connection, now: datetime, limit: int) -> list[Due]:
        if limit <= 0:
            return []
        found = agenda.find(connection, now, limit + len(self._postponed))
        return [due for due in found if (agenda.name, due.key) not in self._postponed][:limit]

    def _next_due_at(
        self, agenda: Agenda, connection: Connection, now: datetime
    ) -> datetime | None:
        due_at = agenda.next_due_at(connection)
        if due_at is None or not self._postponed:
            return due_at
        if self._find(agenda, connection, now, 1):
            return now
        # A postponed row hides what falls due behind it.
        return max(due_at, now + timedelta(seconds=LOOK_BEHIND_SECONDS))


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the earlier of two instants, None if there is neither."""
    return min((at for at in (one, other) if at is not None), default=None)

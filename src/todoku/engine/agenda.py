"""Agendas: rows on which a service decides of its own accord when their time has come."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Generic

import msgspec
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    Text,
    and_,
    bindparam,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.sql.elements import BindParameter
from typing_extensions import TypeVar

from todoku.database import Many, Query, Timestamp
from todoku.engine.clock import Correction
from todoku.engine.due_window import DueWindow, due_window
from todoku.engine.messages import Due
from todoku.engine.parts import ONLY, WITHOUT, AgendaParts, Selection, StillSpan
from todoku.engine.still_timers import push_timers
from todoku.events import NO_CONTEXT, Context

DUE_MAX = 200
"""How many due rows of one agenda a batch decides on at most."""

CONTEXT_COLUMN = "context"

S = TypeVar("S", default=Any)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Context).decode


def context_column() -> Column[str]:
    """Return the column in which the engine keeps the context of a row of an agenda, as JSON."""
    return Column(CONTEXT_COLUMN, Text)


def no_cause(_: object) -> None:
    """Leave it open which event led to a decision."""


class Agenda(Generic[S]):
    """Rows with a due time, on which `decide` decides when that time has come.

    `due_at` is the column with the due time, NULL in a row that never falls due; index it. `key` is
    the column that names a row: `Due.key`. `due_at_of` returns the due time of a state, None if it has
    none or if it is no state of this agenda; `key_of` returns its key. With `starts_effects`, no more
    rows are taken than there are free effect slots; without, rows are due whatever effects run. No due
    time is set further ahead than `longest_pause_seconds`: a row that is was written while the clock was
    wrong, and is due now. Without it, such a row waits. For `grace_seconds` after a start nothing is due:
    what has come too late because nothing ran arrives in this time. Where rows fall due long after they
    are written, `look_seconds` spares most batches the search: rows of other processes are looked for this
    often, and those of this process when they are due. A batch takes at most `rows_max` rows. `cause_of`
    returns the id of the event that led to what is decided, as the state tells it. An agenda with a `target`
    can be paused by that name, such as "carrier"; every agenda is paused with its service, and one that has
    `parts` for some of its rows. After a pause, its
    due times are later by as long as they stood still; if they are `instants` that somebody was told, they
    stay as they are.

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
        longest_pause_seconds: float | None = None,
        grace_seconds: float = 0.0,
        look_seconds: float | None = None,
        rows_max: int = DUE_MAX,
        cause_of: Callable[[S], str | None] = no_cause,
        target: str | None = None,
        instants: bool = False,
        parts: AgendaParts | None = None,
    ) -> None:
        self.target = target
        self.parts = parts
        self.instants = instants
        self.decide = decide
        self.cause_of = cause_of
        self.due_at_of = due_at_of
        self.key_of = key_of
        self.starts_effects = starts_effects
        self.rows_max = rows_max
        self._longest_pause = (
            None if longest_pause_seconds is None else timedelta(seconds=longest_pause_seconds)
        )
        self._grace = timedelta(seconds=grace_seconds)
        self.look_every = None if look_seconds is None else timedelta(seconds=look_seconds)
        self.name = str(due_at)
        self.due_column, self.key_column = due_at, key
        context = due_at.table.c.get(CONTEXT_COLUMN)
        self.keeps_contexts = context is not None
        rows = (
            select(key, null().label(CONTEXT_COLUMN) if context is None else context)
            .order_by(due_at, key)
            .limit(bindparam("count"))
            .with_for_update(skip_locked=True)
        )
        self._find = Query(rows.where(due_at <= _time("now")))
        self._find_corrected = Query(
            rows.where(
                or_(due_at <= _time("now"), due_at > _time("horizon")),
                ~and_(due_at > _time("held_after"), due_at <= _time("held_until")),
            )
        )
        if parts is not None:
            these = rows.where(
                or_(due_at <= _time("now"), due_at > _time("horizon")),
                ~and_(due_at > _time("held_after"), due_at <= _time("held_until")),
                parts.without(),
            )
            self._find_others, self._find_only = Query(these), Query(these.where(parts.only()))
        self._lock = Query(select(key).where(key == bindparam("due_key")).with_for_update())
        present = due_at.is_not(None)
        self._range = Query(
            select(
                select(func.min(due_at)).where(present).scalar_subquery(),
                select(func.max(due_at)).where(present).scalar_subquery(),
            )
        )
        self._keep = context is not None and Many(
            update(due_at.table)
            .where(key == bindparam("due_key"))
            .values({CONTEXT_COLUMN: bindparam("due_context")})
        )

    def window(self, now: datetime, correction: Correction | None = None) -> DueWindow:
        """Return which due times have come, whenever the process started."""
        return due_window(now, self._longest_pause, correction)

    def window_since(
        self, started_at: datetime | None, now: datetime, correction: Correction | None = None
    ) -> DueWindow:
        """Return which due times have come, where due rows are looked for since `started_at`; None means
        that this has not begun."""
        window = self.window(now, correction)
        if not self._grace:
            return window
        opens_at = datetime.max.replace(tzinfo=now.tzinfo)
        if started_at is not None:
            opens_at = started_at + self._grace
        return msgspec.structs.replace(window, opens_at=opens_at)

    def require_pause(self, state: Any, now: datetime) -> None:
        """Raise `ValueError` if a decision set a due time further ahead than the longest pause: it would
        be due at once, again and again."""
        due_at = self.due_at_of(state)
        if due_at is not None and self.window(now).is_beyond(due_at):
            raise ValueError(
                f"the agenda {self.name} set the due time {due_at}, further ahead than its"
                f" longest_pause_seconds from {now}: declare a longer one"
            )

    def find(self, connection: Connection, now: datetime, count: int) -> list[Due]:
        """Return up to `count` rows due by `now`, the oldest first; lock them where others may take them
        too."""
        return self._to_due(self._find(connection, now=now, count=count))

    def lock(self, connection: Connection, key: str) -> None:
        """Lock a row that was found in another transaction."""
        self._lock(connection, due_key=key)

    def find_corrected(self, connection: Connection, window: DueWindow, count: int) -> list[Due]:
        """Return up to `count` rows whose time has come, as `find` does, by `window`."""
        return self._to_due(
            self._find_corrected(
                connection,
                now=window.now,
                horizon=window.horizon,
                held_after=window.held_after,
                held_until=window.held_until,
                count=count,
            )
        )

    def find_selected(
        self, connection: Connection, window: DueWindow, count: int, selection: Selection
    ) -> list[Due]:
        """Return up to `count` rows whose time has come, as `find_corrected` does, of this selection."""
        query = self._find_only if selection.only else self._find_others
        only = {ONLY: sorted(selection.only)} if selection.only else {}
        return self._to_due(
            query(
                connection,
                now=window.now,
                horizon=window.horizon,
                held_after=window.held_after,
                held_until=window.held_until,
                count=count,
                **{WITHOUT: sorted(selection.without)},
                **only,
            )
        )

    def push(
        self, connection: Connection, timers: Table, span: StillSpan, *, shared: bool = True
    ) -> None:
        """Add the time of the `span` to all due times in it; to those of the `timers`, which were set in
        between, the rest of it. The rows are locked first if the database is `shared`."""
        where: list[ColumnElement[bool]] = []
        if self.parts is not None:
            where = [self.parts.has(name) for name in span.only]
            where += [~self.parts.has(name) for name in span.without]
        push_timers(
            connection,
            self.name,
            self.due_column,
            self.key_column,
            timers,
            span.since,
            span.until,
            where=where,
            shared=shared,
        )

    def _to_due(self, found: Iterable[Any]) -> list[Due]:
        return [Due(key, self, _read_context(kept)) for key, kept in found]

    def due_range(self, connection: Connection) -> tuple[datetime, datetime] | None:
        """Return the first and the last due time, None if no row has one."""
        return self.send_due_range(connection)()

    def send_due_range(
        self, connection: Connection
    ) -> Callable[[], tuple[datetime, datetime] | None]:
        """Ask for the first and the last due time; return what returns them, also after the commit."""
        rows = self._range.send(connection)

        def due_range() -> tuple[datetime, datetime] | None:
            ((first, last),) = rows()
            return None if first is None else (first, last)

        return due_range

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
    except msgspec.DecodeError:  # It was edited by hand: the row is kept, without its context.
        return NO_CONTEXT


def _time(name: str) -> BindParameter[datetime]:
    return bindparam(name, type_=Timestamp)

"""The rows of a service's agendas that are due now, and when to look for the next ones."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection

from todoku.engine.agenda import DUE_MAX, Agenda
from todoku.engine.clock import Correction
from todoku.engine.due_window import DueWindow, closed_window
from todoku.engine.messages import Due
from todoku.engine.parts import Selection
from todoku.engine.pauses import LOOK_SECONDS, OPEN, Allowance, Gate, PauseRecord, touches

POSTPONED_SECONDS = 60.0
"""How long a due row is postponed after its decision has failed."""

LOOK_BEHIND_SECONDS = 1.0
"""How long until the writer looks for due rows behind postponed ones, and for those that another process
has locked."""

LOOK_BESIDE_PARTS_SECONDS = 0.25
"""How often due rows are looked for at most while a part of their agenda is paused: the look passes over
all rows of that part that are due."""


ALL = Selection()
_BESIDE_PARTS = timedelta(seconds=LOOK_BESIDE_PARTS_SECONDS)


class DueTimes(msgspec.Struct, frozen=True):
    """When (UTC) the next row is due: of agendas that start effects, and of the others."""

    effects_at: datetime | None = None
    others_at: datetime | None = None


class _Look(msgspec.Struct):
    """When the due times of an agenda were looked at, and the first of them as far as it is known."""

    at: datetime
    first: datetime | None


class _Quiet(msgspec.Struct, frozen=True):
    """A time in which no row of any agenda falls due, and when to look next."""

    since: datetime
    until: datetime
    times: DueTimes


class _Windows(dict[Agenda[Any], DueWindow]):
    """The windows of agendas, each made when it is asked for: most batches ask for none."""

    def __init__(self, window_of: Callable[[Agenda[Any]], DueWindow]) -> None:
        self._window_of = window_of

    def __missing__(self, agenda: Agenda[Any]) -> DueWindow:
        window = self[agenda] = self._window_of(agenda)
        return window


class DueRows:
    """The due rows of a service's agendas, except those that are postponed after a failure.

    If the database is `shared`, other processes may have locked due rows, which are skipped.
    """

    def __init__(
        self, agendas: Sequence[Agenda], due_max: int = DUE_MAX, *, shared: bool = False
    ) -> None:
        self._agendas = agendas
        self._due_max = due_max
        self._shared = shared
        self._all_found: dict[Agenda, bool] = {}
        self._postponed: dict[tuple[str, str], datetime] = {}
        self._beyond: dict[Agenda, bool] = {}
        self._started_at: datetime | None = None
        self._looks: dict[Agenda, _Look] = {}
        self._part_looks: dict[Agenda, datetime] = {}
        self._quiet: _Quiet | None = None
        self._gate = OPEN

    def windows(
        self, now: datetime, correction: Correction | None = None
    ) -> Mapping[Agenda, DueWindow]:
        """Return which due times of each agenda have come."""
        return _Windows(lambda agenda: self._window(agenda, now, correction))

    def set_gate(self, gate: Gate, now: datetime) -> None:
        """Take no rows of agendas that are paused. The grace of one that no longer is begins now."""
        if self._gate.paused.keys() - gate.paused.keys():
            self._started_at = now
        if self._gate is not gate:
            self._looks.clear()
            self._part_looks.clear()
            self._quiet = None
        self._gate = gate

    def find(
        self,
        connection: Connection,
        now: datetime,
        effect_slots: int,
        correction: Correction | None = None,
        allowance: Allowance | None = None,
    ) -> list[Due]:
        """Return what is due: at most `effect_slots` rows of agendas that start effects, and no more than
        the allowance of those that are limited."""
        if not self._agendas or self._is_quiet(now):
            return []
        if self._started_at is None or now < self._started_at:  # The clock may be set back.
            self._started_at = now
        if self._postponed:
            latest = now + timedelta(seconds=POSTPONED_SECONDS)
            self._postponed = {key: at for key, at in self._postponed.items() if now < at <= latest}
        found: list[Due] = []
        for agenda in self._agendas:
            if agenda in self._gate.paused or self._need_not_look(agenda, now):
                continue
            window = self._window(agenda, now, correction)
            if agenda.look_every is not None and self._finds_nothing(agenda, connection, window):
                continue
            limit = min(self._due_max, agenda.rows_max)
            if agenda.starts_effects:
                limit = min(effect_slots, limit)
            for selection in self._selections(agenda):
                rows = self._take(agenda, connection, window, limit, selection, allowance)
                limit -= len(rows)
                found += rows
                if agenda.starts_effects:
                    effect_slots -= len(rows)
        return found

    def _selections(self, agenda: Agenda) -> Sequence[Selection]:
        """Return which rows to take: all, or the limited and the others where parts are paused or limited."""
        limits = self._gate.limited.get(agenda, ())
        paused = self._gate.paused_parts.get(agenda, frozenset())
        limited = self._gate.limited_parts.get(agenda)
        if limited is None:
            return (Selection(without=paused, pauses=limits),)
        names = frozenset(limited)
        pauses = tuple(pause for those in limited.values() for pause in those)
        return (
            Selection(only=names, without=paused, pauses=(*limits, *pauses)),
            Selection(without=paused | names, pauses=limits),
        )

    def _take(
        self,
        agenda: Agenda,
        connection: Connection,
        window: DueWindow,
        limit: int,
        selection: Selection,
        allowance: Allowance | None,
    ) -> list[Due]:
        """Return up to `limit` rows of a selection, and no more than the allowance."""
        if selection.pauses:
            limit = allowance.limit(selection.pauses, limit) if allowance is not None else 0
        rows = self._find(agenda, connection, window, limit, selection)
        self._all_found[agenda] = len(rows) < limit
        if self._all_found[agenda]:
            self._part_looks[agenda] = window.now
        if allowance is not None:
            allowance.take(selection.pauses, len(rows), all_found=self._all_found[agenda])
        return rows

    def is_looked_at(self, pause: PauseRecord, now: datetime) -> bool:
        """Return whether all that a pause covers was looked at, and is not in its period of grace."""
        return all(
            self._window(agenda, now).is_open for agenda in self._agendas if touches(pause, agenda)
        )

    def postpone(self, due: Due, now: datetime) -> None:
        """Leave out a row for a while, because its decision has failed."""
        self._quiet = None
        self._postponed[due.agenda.name, due.key] = now + timedelta(seconds=POSTPONED_SECONDS)

    def note_due(self, earliest: Mapping[Agenda, datetime]) -> None:
        """Note the earliest due time that this process has just set, by agenda."""
        for agenda, due_at in earliest.items():
            if (look := self._looks.get(agenda)) is not None:
                look.first = earlier(look.first, due_at)
            if self._quiet is not None and due_at < self._quiet.until:
                self._quiet = None

    def send_next_due(
        self, connection: Connection, now: datetime, correction: Correction | None = None
    ) -> Callable[[], DueTimes]:
        """Ask when to look for due rows next; return what returns it, to be called after the commit."""
        if self._quiet is not None and self._is_quiet(now):
            times = self._quiet.times
            return lambda: times
        if not all(self._is_plain(agenda, now, correction) for agenda in self._agendas):
            times = self.next_due(connection, now, correction)
            return lambda: times
        ranges = {
            agenda: agenda.send_due_range(connection)
            for agenda in self._agendas
            if not self._need_not_look(agenda, now)
        }
        return lambda: self._next_due(None, now, correction, ranges)

    def _is_plain(self, agenda: Agenda, now: datetime, correction: Correction | None) -> bool:
        """Return whether the range of its due times tells when to look for due rows of it next."""
        if self._postponed or self._beyond.get(agenda):
            return False
        gate = self._gate
        special = (gate.paused, gate.paused_parts, gate.limited, gate.limited_parts)
        if not gate.is_open and any(agenda in each for each in special):
            return False
        return correction is None or not self._window(agenda, now, correction).holds

    def next_due(
        self, connection: Connection, now: datetime, correction: Correction | None = None
    ) -> DueTimes:
        """Return when to look for due rows next."""
        ranges = {agenda: partial(agenda.due_range, connection) for agenda in self._agendas}
        return self._next_due(connection, now, correction, ranges)

    def _next_due(
        self,
        connection: Connection | None,
        now: datetime,
        correction: Correction | None,
        ranges: Mapping[Agenda, Callable[[], tuple[datetime, datetime] | None]],
    ) -> DueTimes:
        times: dict[bool, datetime | None] = {True: None, False: None}
        for agenda in self._agendas:
            if agenda in self._gate.paused:
                continue
            due_at: datetime | None
            if agenda in self._gate.paused_parts:
                due_at = self._next_look_beside_parts(agenda, now)
            elif self._need_not_look(agenda, now):
                due_at = self._next_look(agenda)
            else:
                window = self._window(agenda, now, correction)
                due_at = self._next_due_at(agenda, connection, window, ranges[agenda]())
                if agenda.look_every is not None:
                    due_at = earlier(due_at, now + agenda.look_every)
            # Also to find that nothing is left.
            if agenda in self._gate.limited or agenda in self._gate.limited_parts:
                window = self._window(agenda, now, correction)
                soon = now + timedelta(seconds=LOOK_SECONDS)
                due_at = soon if window.is_open else window.opens_at
            times[agenda.starts_effects] = earlier(times[agenda.starts_effects], due_at)
        next_due = DueTimes(effects_at=times[True], others_at=times[False])
        self._note_quiet(next_due, now)
        return next_due

    def _note_quiet(self, times: DueTimes, now: datetime) -> None:
        """Note until when no batch needs to look for due rows, if that is known of all agendas."""
        self._quiet = None
        if self._gate.is_open and not self._postponed and not any(self._beyond.values()):
            until = earlier(times.effects_at, times.others_at)
            if until is not None and all(self._need_not_look(each, now) for each in self._agendas):
                self._quiet = _Quiet(now, until, times)

    def _is_quiet(self, now: datetime) -> bool:
        """Return whether nothing is due, as is known without a look at the agendas."""
        quiet = self._quiet
        return quiet is not None and quiet.since <= now < quiet.until

    def _finds_nothing(self, agenda: Agenda, connection: Connection, window: DueWindow) -> bool:
        """Return whether no row is due, as most looks find: one statement tells, also when to look next."""
        if not window.is_open or window.holds or self._postponed or self._beyond.get(agenda):
            return False
        due_range = agenda.due_range(connection)
        first, last = due_range or (None, None)
        due = first is not None and first <= window.now
        if due or (last is not None and window.is_beyond(last)):
            return False
        self._looks[agenda] = _Look(window.now, first)
        return True

    def _need_not_look(self, agenda: Agenda, now: datetime) -> bool:
        """Return whether no row of this agenda can be due, as far as this process knows."""
        if agenda in self._gate.paused_parts and agenda not in self._gate.limited:
            if agenda in self._gate.limited_parts:
                return False
            looked_at = self._part_looks.get(agenda)
            return looked_at is not None and looked_at <= now < looked_at + _BESIDE_PARTS
        look = self._looks.get(agenda)
        if look is None or agenda.look_every is None:
            return False
        is_new = look.at <= now < look.at + agenda.look_every
        return is_new and (look.first is None or now < look.first)

    def _next_look(self, agenda: Agenda) -> datetime | None:
        look = self._looks[agenda]
        assert agenda.look_every is not None
        return earlier(look.first, look.at + agenda.look_every)

    def _next_look_beside_parts(self, agenda: Agenda, now: datetime) -> datetime:
        """Return when to look for due rows beside those that are paused, without a search for the first."""
        looked_at = self._part_looks.get(agenda)
        return now if looked_at is None else max(now, looked_at + _BESIDE_PARTS)

    def _window(
        self, agenda: Agenda, now: datetime, correction: Correction | None = None
    ) -> DueWindow:
        if agenda in self._gate.paused:
            return closed_window(now)
        return agenda.window_since(self._started_at, now, correction)

    def _find(
        self,
        agenda: Agenda,
        connection: Connection,
        window: DueWindow,
        limit: int,
        selection: Selection = ALL,
    ) -> list[Due]:
        if limit <= 0 or not window.is_open:
            return []
        count = limit + len(self._postponed)
        if selection.only or selection.without:
            found = agenda.find_selected(connection, window, count, selection)
        elif window.holds or self._beyond.get(agenda):
            found = agenda.find_corrected(connection, window, count)
        else:
            found = agenda.find(connection, window.now, count)
        return [due for due in found if (agenda.name, due.key) not in self._postponed][:limit]

    def _next_due_at(
        self,
        agenda: Agenda,
        connection: Connection | None,
        window: DueWindow,
        due_range: tuple[datetime, datetime] | None,
    ) -> datetime | None:
        if agenda.look_every is not None:
            self._looks[agenda] = _Look(window.now, None if due_range is None else due_range[0])
        if due_range is None:
            self._beyond.pop(agenda, None)
            return None
        first, last = due_range
        if not window.is_open:
            return None if self._started_at is None else max(first, window.opens_at or first)
        beyond = self._beyond[agenda] = window.is_beyond(last)
        soon = window.now + timedelta(seconds=LOOK_BEHIND_SECONDS)
        if not (self._postponed or window.holds or beyond):
            # A row that is still due was locked by another process, which decides on it.
            locked = self._shared and self._all_found.get(agenda) and first <= window.now
            return soon if locked else first
        # After the commit it is not known whether what was found beyond the horizon is free.
        if connection is None or self._find(agenda, connection, window, 1):
            return window.now
        # A postponed row, or one that is held, hides what falls due behind it.
        return soon if window.holds else max(first, soon)


def earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the earlier of two instants, None if there is neither."""
    if one is None or other is None:
        return one or other
    return min(one, other)

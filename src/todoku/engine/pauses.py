"""Pauses: a service, or one thing that it does, starts nothing until somebody resumes it. Pure.

    PAUSED ──resume──▶ RESUMED
       └─ with a rate ─▶ RESUMING ─ the backlog is through ─▶ RESUMED

A paused service executes commands and consumes messages, but decides on no due row and starts no effect.
Its timers stand still: what is left of one is left when the pause ends.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from todoku.engine.agenda import Agenda

SERVICE: Final = "service"
"""The target that every service has: everything that it starts of its own accord."""

PART_SEPARATOR: Final = ":"
"""Stands between the kind of a part and its name, in what is paused: "product:coffee"."""

RATE_MAX: Final = 1_000
"""The highest rate of a resume, in starts per second."""

CATCH_UP_SECONDS: Final = 0.1
"""How much of the time in which nothing was started a rate makes up for at most."""

LOOK_SECONDS: Final = 0.05
"""How often a resume with a rate looks for what may start next."""


class PauseError(Exception):
    """A command about a pause cannot be executed."""


class UnknownPause(PauseError):
    """There is no pause with this id."""


class UnknownPauseTarget(PauseError):
    """The service has nothing of this name that could be paused."""


class NotPaused(PauseError):
    """This pause was resumed before."""


class PauseState(StrEnum):
    """The state of a pause."""

    PAUSED = "PAUSED"
    RESUMING = "RESUMING"
    RESUMED = "RESUMED"


class PauseRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pause of `target`: who paused and resumed it, when (UTC), and why.

    After a resume with a `rate` (starts per second), the next start is at `next_at`, and the backlog was
    through at `through_at`.
    """

    id: str
    target: str
    paused_at: datetime
    paused_by: str
    reason: str
    resumed_at: datetime | None = None
    resumed_by: str | None = None
    rate: int | None = None
    next_at: datetime | None = None
    through_at: datetime | None = None

    @property
    def state(self) -> PauseState:
        """Return the state."""
        if self.resumed_at is None:
            return PauseState.PAUSED
        return PauseState.RESUMING if self.through_at is None else PauseState.RESUMED


class Pause(msgspec.Struct, frozen=True, kw_only=True):
    """Pause `target`: the whole service, the agendas of this name, or a part of them, `kind:name`. A repeated
    command is one pause."""

    id: str
    by: str
    reason: str
    target: str = SERVICE


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """End a pause. With a `rate`, so many due rows a second are decided on at most until none is left."""

    pause_id: str
    by: str
    rate: int | None = None


PAUSE_COMMANDS = (Pause, Resume)
"""The commands about pauses that every service knows."""


def paused(command: Pause, now: datetime) -> PauseRecord:
    """Return the pause that begins now."""
    return PauseRecord(
        id=command.id,
        target=command.target,
        paused_at=now,
        paused_by=command.by,
        reason=command.reason,
    )


def resumed(pause: PauseRecord, command: Resume, now: datetime) -> PauseRecord:
    """Return the pause as ended. Raises `NotPaused`."""
    if pause.resumed_at is not None:
        raise NotPaused(
            f"The pause {pause.id} of {pause.target!r} was resumed by {pause.resumed_by} at "
            f"{pause.resumed_at:%F %T} UTC."
        )
    return msgspec.structs.replace(
        pause,
        resumed_at=max(now, pause.paused_at),
        resumed_by=command.by,
        rate=command.rate,
        next_at=None if command.rate is None else now,
        through_at=now if command.rate is None else None,
    )


def targets(agendas: Iterable["Agenda"]) -> tuple[str, ...]:
    """Return what can be paused in a service that has these agendas."""
    names = (agenda.target for agenda in agendas if agenda.target is not None)
    return tuple(dict.fromkeys((SERVICE, *names)))


def kinds(agendas: Iterable["Agenda"]) -> tuple[str, ...]:
    """Return of which kinds parts can be paused in a service that has these agendas."""
    return tuple(dict.fromkeys(agenda.parts.kind for agenda in agendas if agenda.parts is not None))


def is_target(target: str, agendas: Sequence["Agenda"]) -> bool:
    """Return whether a service that has these agendas can pause this."""
    kind, _, name = target.partition(PART_SEPARATOR)
    return target in targets(agendas) or (bool(name) and kind in kinds(agendas))


def covers(pause: PauseRecord, agenda: "Agenda") -> bool:
    """Return whether a pause stops the whole of this agenda."""
    return pause.target in (SERVICE, agenda.target)


def part_of(pause: PauseRecord, agenda: "Agenda") -> str | None:
    """Return the name of the part of this agenda that a pause stops, None if it stops none."""
    if agenda.parts is None:
        return None
    kind, _, name = pause.target.partition(PART_SEPARATOR)
    return name if name and kind == agenda.parts.kind else None


def touches(pause: PauseRecord, agenda: "Agenda") -> bool:
    """Return whether a pause stops this agenda or a part of it."""
    return covers(pause, agenda) or part_of(pause, agenda) is not None


def still_until(
    ended: PauseRecord, others: Iterable[PauseRecord], now: datetime
) -> tuple[datetime, datetime] | None:
    """Return from when until when timers stood still by a pause that ends now, None if they did not.

    `others` are the other pauses that still stop the same timers. What they cover is left to them.
    """
    until = min((now, *(other.paused_at for other in others)))
    return (ended.paused_at, until) if until > ended.paused_at else None


class Gate(msgspec.Struct, frozen=True):
    """What must not start now, as far as a process knows: the agendas that are `paused`, those that are
    `limited` by a rate, and, where `no_effects`, the effects of commands and events. Parts of other agendas
    are paused, or limited, by their names."""

    open_pauses: Sequence[PauseRecord] = ()
    paused: Mapping["Agenda", tuple[PauseRecord, ...]] = {}
    limited: Mapping["Agenda", tuple[PauseRecord, ...]] = {}
    no_effects: bool = False
    paused_parts: Mapping["Agenda", frozenset[str]] = {}
    limited_parts: Mapping["Agenda", Mapping[str, tuple[PauseRecord, ...]]] = {}

    @property
    def is_open(self) -> bool:
        """Return whether nothing is paused or limited."""
        return not self.open_pauses

    @property
    def limiting(self) -> set[str]:
        """Return the ids of the pauses that limit something by their rates."""
        parts = (pauses for names in self.limited_parts.values() for pauses in names.values())
        return {pause.id for pauses in (*self.limited.values(), *parts) for pause in pauses}

    def stops(self, agenda: "Agenda", state: object) -> bool:
        """Return whether the row of this state is paused."""
        if agenda in self.paused:
            return True
        names = self.paused_parts.get(agenda)
        return names is not None and not names.isdisjoint(_names_of(agenda, state))

    def limits(self, agenda: "Agenda", state: object) -> bool:
        """Return whether a rate limits the row of this state."""
        if agenda in self.limited:
            return True
        names = self.limited_parts.get(agenda)
        return names is not None and not names.keys().isdisjoint(_names_of(agenda, state))


def _names_of(agenda: "Agenda", state: object) -> Collection[str]:
    assert agenda.parts is not None
    return agenda.parts.names_of(state)


OPEN: Final = Gate()


def gate(pauses: Sequence[PauseRecord], agendas: Sequence["Agenda"]) -> Gate:
    """Return what these pauses, of which none is through, stop and limit."""
    if not pauses:
        return OPEN
    active = [pause for pause in pauses if pause.state is PauseState.PAUSED]
    ending = [pause for pause in pauses if pause.state is PauseState.RESUMING]
    stopped = _by_agenda(active, agendas)
    return Gate(
        open_pauses=tuple(pauses),
        paused=stopped,
        limited={
            agenda: found
            for agenda, found in _by_agenda(ending, agendas).items()
            if agenda not in stopped
        },
        no_effects=any(pause.target == SERVICE for pause in active),
        paused_parts={
            agenda: frozenset(names) for agenda, names in _by_part(active, agendas).items()
        },
        limited_parts=_by_part(ending, agendas),
    )


def _by_agenda(
    pauses: Sequence[PauseRecord], agendas: Sequence["Agenda"]
) -> dict["Agenda", tuple[PauseRecord, ...]]:
    found = {agenda: tuple(p for p in pauses if covers(p, agenda)) for agenda in agendas}
    return {agenda: those for agenda, those in found.items() if those}


def _by_part(
    pauses: Sequence[PauseRecord], agendas: Sequence["Agenda"]
) -> dict["Agenda", dict[str, tuple[PauseRecord, ...]]]:
    found: dict[Agenda, dict[str, tuple[PauseRecord, ...]]] = {}
    for agenda in agendas:
        for pause in pauses:
            if (name := part_of(pause, agenda)) is not None:
                names = found.setdefault(agenda, {})
                names[name] = (*names.get(name, ()), pause)
    return found


class Allowance:
    """How many due rows may be decided on now, where resumes have rates.

    In any span of time, a rate allows what falls into it, and into `CATCH_UP_SECONDS` more.
    """

    def __init__(self, pauses: Iterable[PauseRecord], now: datetime) -> None:
        self._pauses = {pause.id: pause for pause in pauses}
        self._base = {pause.id: _next_start(pause, now) for pause in self._pauses.values()}
        self._taken = dict.fromkeys(self._pauses, 0)
        self._left_over: set[str] = set()
        self._now = now

    def limit(self, pauses: Iterable[PauseRecord], wanted: int) -> int:
        """Return how many of the `wanted` rows these pauses allow."""
        return min((wanted, *(self._allowed(pause.id) for pause in pauses)))

    def take(self, pauses: Iterable[PauseRecord], count: int, *, all_found: bool) -> None:
        """Note that so many rows are decided on, and whether there are no more."""
        for pause in pauses:
            if pause.id in self._taken:
                self._taken[pause.id] += count
                if not all_found:
                    self._left_over.add(pause.id)

    def changed(self, is_looked_at: Callable[[PauseRecord], bool]) -> list[PauseRecord]:
        """Return the pauses as they are to be saved: when each may start the next row, or that its backlog
        is through, if all that it covers `is_looked_at`."""
        changed = []
        for pause_id, pause in self._pauses.items():
            assert pause.rate is not None
            next_at = self._base[pause_id] + timedelta(seconds=self._taken[pause_id] / pause.rate)
            is_through = pause_id not in self._left_over and is_looked_at(pause)
            if self._taken[pause_id] or is_through:
                through_at = self._now if is_through else None
                changed.append(
                    msgspec.structs.replace(pause, next_at=next_at, through_at=through_at)
                )
        return changed

    def _allowed(self, pause_id: str) -> int:
        pause = self._pauses.get(pause_id)
        if pause is None:
            return RATE_MAX  # Another process has found that its backlog is through.
        assert pause.rate is not None
        seconds = (self._now - self._base[pause_id]).total_seconds()
        allowed = int(seconds * pause.rate) + 1 if seconds >= 0 else 0
        return max(0, allowed - self._taken[pause_id])


def _next_start(pause: PauseRecord, now: datetime) -> datetime:
    """Return from when on the rate of this pause allows starts.

    A process writes at most one interval of the rate ahead. If it is more, that process's clock was ahead, or
    this one was set back: who waited for it would wait that long, so the next start is now.
    """
    assert pause.rate is not None
    next_at = pause.next_at or now
    if next_at > now + timedelta(seconds=1 / pause.rate):
        return now
    return max(next_at, now - timedelta(seconds=CATCH_UP_SECONDS))

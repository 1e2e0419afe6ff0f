"""Pauses services and what they do, at random, and checks R8: what is paused starts nothing, its timers
stand still, and a resume with a rate starts no more than that.

At the end an operator resumes whatever is paused.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from todoku.engine import Agenda, Pause, Resume, Service
from todoku.engine.pauses import CATCH_UP_SECONDS, SERVICE, PauseError, targets
from todoku.lab.simulation.database import SimulatedDatabase
from todoku.lab.simulation.part import ServiceWorld
from todoku.lab.simulation.wiring import Parts
from todoku.simulated import Action

PAUSE_SECONDS_MAX: Final = 30.0
RATES: Final = (None, 1, 1, 2, 50)
PART_SHARE: Final = 0.4
"""How often one part of an agenda is paused instead of the whole."""

EFFECTS_WEIGHT: Final = 3
"""How much more often a service is paused that calls others."""

OPERATOR_SECONDS: Final = 1.0

BATCH_SECONDS: Final = 2.0
"""How much earlier than it is seen a pause may have ended: its batch has slow statements."""

SHARED_SECONDS: Final = 30.0
"""How long another process may not know of a pause: with all injected delays of its batch."""

_PAUSES = (
    "SELECT id, target, paused_at, resumed_at, rate, through_at FROM pauses ORDER BY paused_at, id"
)
_PAUSED = "SELECT id FROM pauses WHERE resumed_at IS NULL ORDER BY id"
_NOT_THROUGH = "SELECT target FROM pauses WHERE through_at IS NULL"

Fail = Callable[..., None]


class Row(NamedTuple):
    """A pause as the database has it; times in microseconds."""

    id: str
    target: str
    paused_at: int
    resumed_at: int | None
    rate: int | None
    through_at: int | None

    @property
    def is_active(self) -> bool:
        """Return whether nobody has resumed it."""
        return self.resumed_at is None


Timers = dict[str, dict[str, int]]
"""By agenda and key: when a row is due, in microseconds."""


class Pausing:
    """Pauses at random, and resumes."""

    def __init__(
        self, services: Sequence[Service], worlds: Mapping[str, ServiceWorld], seed: int
    ) -> None:
        self._services = services
        self._worlds = worlds
        self._ids = Random(f"{seed} ids of pauses")
        self._places = [
            (service, target)
            for service in services
            for target in targets(service.agendas)
            for _ in range(EFFECTS_WEIGHT if service.effects else 1)
        ]
        self._dice = Random(f"{seed} rates of resumes")
        self._parts = Random(f"{seed} parts that are paused")

    def actions(self) -> Mapping[str, Action]:
        """Return what injects a pause."""
        return {"pause": self._pause}

    async def resume_all(self) -> None:
        """Resume everything, as an operator does in the end; also what is paused late, by a command that has
        waited."""
        while True:
            for service in self._services:
                for (pause_id,) in self._worlds[service.name].rows(_PAUSED):
                    await self._resume(service.name, pause_id, self._dice.choice(RATES))
            await asyncio.sleep(OPERATOR_SECONDS)

    def unfinished(self) -> list[str]:
        """Return what is paused, or still has a backlog."""
        return [
            f"the pause of {target} at {service.name} is not through"
            for service in self._services
            for (target,) in self._worlds[service.name].rows(_NOT_THROUGH)
        ]

    async def _pause(self, dice: Random) -> None:
        service, target = dice.choice(self._places)
        world = self._worlds[service.name]
        target = self._perhaps_part(service, target)
        pause_id = world.new_id(self._ids)
        world.note("pause", f"{service.name}: {target}")
        await world.execute(Pause(id=pause_id, target=target, by="chance", reason="a simulation"))
        await asyncio.sleep(dice.uniform(0, PAUSE_SECONDS_MAX))
        rate = dice.choice(RATES)
        while (pause_id,) in world.rows(_PAUSED):
            await self._resume(service.name, pause_id, rate)
            await asyncio.sleep(OPERATOR_SECONDS)

    def _perhaps_part(self, service: Service, target: str) -> str:
        """Return what to pause: the target, or now and then a part of it that rows have now."""
        for agenda in service.agendas:
            if agenda.target != target or agenda.parts is None:
                continue
            if self._parts.random() >= PART_SHARE:
                continue
            name = agenda.parts.name
            query = f"SELECT DISTINCT {name.name} FROM {name.table.name} ORDER BY {name.name}"
            if found := self._worlds[service.name].rows(query):
                return f"{agenda.parts.kind}:{self._parts.choice(found)[0]}"
        return target

    async def _resume(self, name: str, pause_id: str, rate: int | None) -> None:
        with suppress(PauseError):
            command = Resume(pause_id=pause_id, by="operator", rate=rate)
            await self._worlds[name].execute(command)


class PauseChecker:
    """Checks R8 at one service."""

    def __init__(self, service: Service, database: SimulatedDatabase, fail: Fail) -> None:
        self._agendas = service.agendas
        self._name = service.name
        self._database = database
        self._fail = fail
        self._bound = 0.0 if database.exclusive else SHARED_SECONDS
        self._since: dict[str, float] = {}
        self._begun: dict[str, Timers] = {}
        self._timers: Timers = {}
        self._resumed: dict[str, float] = {}
        self._started: Counter[str] = Counter()

    def watch(self, parts: Parts) -> Parts:
        """Check whatever a process starts."""
        agendas = [self._watched(agenda) for agenda in parts.service.agendas]
        effects = {
            kind: partial(self._call, handler) for kind, handler in parts.service.effects.items()
        }
        service = replace(parts.service, agendas=agendas, effects=effects)
        return msgspec.structs.replace(parts, service=service)

    def restored(self) -> None:
        """Begin anew: the database has another history. The timers that it has are not checked for the pauses
        that it has: some of them may have begun during such a pause."""
        self._since = {pause.id: _now() for pause in self._pauses() if pause.is_active}
        self._begun = {
            pause_id: {agenda.name: {} for agenda in self._agendas} for pause_id in self._since
        }
        self._resumed.clear()
        self._started.clear()
        self._timers = {}

    def check_commit(self) -> None:
        """Note which pauses have begun and ended; check the timers of those that have ended."""
        pauses = self._pauses()
        if not pauses:
            return
        timers = self._read_timers()
        for pause in pauses:
            if pause.is_active and pause.id not in self._since:
                self._since[pause.id] = _now()
                self._begun[pause.id] = {name: dict(due) for name, due in timers.items()}
            elif not pause.is_active and pause.id in self._since:
                del self._since[pause.id]
                self._resumed[pause.id] = _now()
                self._check_timers(pause, pauses, self._begun.pop(pause.id), timers)
        for begun in self._begun.values():
            _drop_changed(begun, timers)
        self._timers = timers

    def _check_timers(
        self, ended: Row, pauses: Sequence[Row], begun: Timers, timers: Timers
    ) -> None:
        """Check that what was left of each timer is left, unless another pause stops it too."""
        assert ended.resumed_at is not None
        for agenda in self._agendas:
            if agenda.instants or not _touches(ended, agenda):
                continue
            others = [each for each in pauses if each.is_active and _touches(each, agenda)]
            names = self._names(agenda)
            self._check_others(ended, agenda, names, timers)
            for key, due_at in begun[agenda.name].items():
                own = names.get(key, frozenset())
                if not _stops(ended, agenda, own) or any(
                    _stops(each, agenda, own) for each in others
                ):
                    continue
                untouched = self._timers.get(agenda.name, {}).get(key) == due_at
                now_due = timers[agenda.name].get(key)
                if not untouched or now_due is None:
                    continue
                left, was_left = now_due - ended.resumed_at, due_at - ended.paused_at
                if left != was_left:
                    problem = f"a timer of {agenda.name} ran on for {(was_left - left) / 1e6:g} s"
                    self._fail("R8", f"{problem} while {self._name} was paused", key)

    def _check_others(
        self, ended: Row, agenda: Agenda, names: Mapping[str, Collection[str]], timers: Timers
    ) -> None:
        """Check that the end of a pause leaves the timers that it did not stop."""
        before, after = self._timers.get(agenda.name, {}), timers[agenda.name]
        for key in before.keys() & after.keys():
            stopped = _stops(ended, agenda, names.get(key, frozenset()))
            if not stopped and before[key] != after[key]:
                problem = f"a timer of {agenda.name} moved when the pause of {ended.target} ended"
                self._fail("R8", f"{problem} at {self._name}", key)

    def _watched(self, agenda: Agenda) -> Agenda:
        watched: Any = copy.copy(agenda)
        watched.decide = partial(self._decide, agenda, agenda.decide)
        found: Agenda = watched
        return found

    def _decide(self, agenda: Agenda, decide: Callable[..., Any], state: Any, now: Any) -> Any:
        names = () if agenda.parts is None else agenda.parts.names_of(state)
        if self._is_paused(partial(_stops, agenda=agenda, names=names)):
            problem = f"decided on a due row of {agenda.name}, which is paused"
            self._fail("R8", f"{self._name} {problem}", agenda.key_of(state))
        return decide(state, now)

    async def _call(self, handler: Callable[[Any], Awaitable[Any]], effect: Any) -> Any:
        starting = [agenda for agenda in self._agendas if agenda.starts_effects]
        stopped = [self._is_paused(partial(_covers, agenda=agenda)) for agenda in starting]
        if self._is_paused(_covers_all) or (stopped and all(stopped)):
            self._fail("R8", f"{self._name} started an effect while it was paused")
        self._count_start()
        return await handler(effect)

    def _count_start(self) -> None:
        """Check that no more is started than the rates of resumes allow."""
        for pause in self._pauses():
            since = self._resumed.get(pause.id)
            if pause.rate is None or pause.through_at is not None or since is None:
                continue
            if not any(_covers(pause, agenda) for agenda in self._agendas):
                continue  # Of the effects of a part this cannot tell which they are.
            self._started[pause.id] += 1
            allowed = pause.rate * (_now() - since + BATCH_SECONDS + CATCH_UP_SECONDS) + 1
            if self._started[pause.id] > allowed and self._database.exclusive:
                count = self._started[pause.id]
                problem = f"started {count} effects in {_now() - since:.2f} s at {pause.rate}/s"
                self._fail("R8", f"{self._name} {problem}")

    def _is_paused(self, covers: Callable[[Row], bool]) -> bool:
        return any(
            pause.is_active
            and covers(pause)
            and self._since.get(pause.id, _now()) + self._bound < _now()
            for pause in self._pauses()
        )

    def _pauses(self) -> list[Row]:
        return [Row(*row) for row in self._database.look(_PAUSES)]

    def _names(self, agenda: Agenda) -> Mapping[str, Collection[str]]:
        """Return by key of which names the rows of an agenda are parts."""
        if agenda.parts is None:
            return {}
        key, row, parts = agenda.key_column, agenda.parts.row, agenda.parts
        found: dict[str, set[str]] = {}
        for key_of_row, name in self._database.look(
            f"SELECT t.{key.name}, m.{parts.name.name} FROM {row.table.name} t"
            f" JOIN {parts.name.table.name} m ON m.{parts.member_of.name} = t.{row.name}"
        ):
            found.setdefault(key_of_row, set()).add(name)
        return found

    def _read_timers(self) -> Timers:
        return {
            agenda.name: dict(self._database.look(_timers_of(agenda))) for agenda in self._agendas
        }


def _covers(pause: Row, agenda: Agenda) -> bool:
    return pause.target in (SERVICE, agenda.target)


def _part_of(pause: Row, agenda: Agenda) -> str | None:
    """Return the name of the part of an agenda that a pause is of, None if it is of none."""
    kind, _, name = pause.target.partition(":")
    return name if agenda.parts is not None and name and kind == agenda.parts.kind else None


def _touches(pause: Row, agenda: Agenda) -> bool:
    return _covers(pause, agenda) or _part_of(pause, agenda) is not None


def _stops(pause: Row, agenda: Agenda, names: Collection[str]) -> bool:
    """Return whether a pause stops a row that is part of these names."""
    return _covers(pause, agenda) or _part_of(pause, agenda) in names


def _covers_all(pause: Row) -> bool:
    return pause.target == SERVICE


def _timers_of(agenda: Agenda) -> str:
    due_at, key = agenda.due_column, agenda.key_column
    return (
        f"SELECT {key.name}, {due_at.name} FROM {due_at.table.name} WHERE {due_at.name} IS NOT NULL"
    )


def _drop_changed(begun: Timers, now: Timers) -> None:
    """Drop the timers that were set again since a pause began, also if it is to the same time."""
    for name, due in begun.items():
        begun[name] = {key: at for key, at in due.items() if now[name].get(key) == at}


def _now() -> float:
    return asyncio.get_running_loop().time()

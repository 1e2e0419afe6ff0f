"""Pauses services and what they do, at random, and checks R8: what is paused starts nothing, its timers
stand still, and a resume with a rate starts no more than that.

At the end an operator resumes whatever is paused.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
        pause_id = world.new_id(self._ids)
        world.note("pause", f"{service.name}: {target}")
        await world.execute(Pause(id=pause_id, target=target, by="chance", reason="a simulation"))
        await asyncio.sleep(dice.uniform(0, PAUSE_SECONDS_MAX))
        rate = dice.choice(RATES)
        while (pause_id,) in world.rows(_PAUSED):
            await self._resume(service.name, pause_id, rate)
            await asyncio.sleep(OPERATOR_SECONDS)

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
                self._begun[pause.id] = timers
            elif not pause.is_active and pause.id in self._since:
                del self._since[pause.id]
                self._resumed[pause.id] = _now()
                self._check_timers(pause, pauses, self._begun.pop(pause.id), timers)
        self._timers = timers

    def _check_timers(
        self, ended: Row, pauses: Sequence[Row], begun: Timers, timers: Timers
    ) -> None:
        """Check that what was left of each timer is left, unless another pause stops it too."""
        assert ended.resumed_at is not None
        for agenda in self._agendas:
            others = [each for each in pauses if each.is_active and _covers(each, agenda)]
            if agenda.instants or others or not _covers(ended, agenda):
                continue
            for key, due_at in begun[agenda.name].items():
                untouched = self._timers.get(agenda.name, {}).get(key) == due_at
                now_due = timers[agenda.name].get(key)
                if not untouched or now_due is None:
                    continue
                left, was_left = now_due - ended.resumed_at, due_at - ended.paused_at
                if left != was_left:
                    problem = f"a timer of {agenda.name} ran on for {(was_left - left) / 1e6:g} s"
                    self._fail("R8", f"{problem} while {self._name} was paused", key)

    def _watched(self, agenda: Agenda) -> Agenda:
        watched: Any = copy.copy(agenda)
        watched.decide = partial(self._decide, agenda, agenda.decide)
        found: Agenda = watched
        return found

    def _decide(self, agenda: Agenda, decide: Callable[..., Any], state: Any, now: Any) -> Any:
        if self._is_paused(partial(_covers, agenda=agenda)):
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

    def _read_timers(self) -> Timers:
        return {
            agenda.name: dict(self._database.look(_timers_of(agenda))) for agenda in self._agendas
        }


def _covers(pause: Row, agenda: Agenda) -> bool:
    return pause.target in (SERVICE, agenda.target)


def _covers_all(pause: Row) -> bool:
    return pause.target == SERVICE


def _timers_of(agenda: Agenda) -> str:
    due_at, key = agenda.due_column, agenda.key_column
    return (
        f"SELECT {key.name}, {due_at.name} FROM {due_at.table.name} WHERE {due_at.name} IS NOT NULL"
    )


def _now() -> float:
    return asyncio.get_running_loop().time()

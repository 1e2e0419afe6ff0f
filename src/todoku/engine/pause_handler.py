"""Executes commands about pauses, and knows what is paused."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.database import Database, to_microseconds
from todoku.engine.due_rows import DueRows
from todoku.engine.parts import still_spans
from todoku.engine.pauses import (
    OPEN,
    SERVICE,
    Allowance,
    Gate,
    Pause,
    PauseRecord,
    PauseState,
    Resume,
    UnknownPause,
    UnknownPauseTarget,
    gate,
    is_target,
    kinds,
    paused,
    resumed,
    targets,
    touches,
)
from todoku.engine.service import Service
from todoku.engine.stream_positions import PAUSES
from todoku.events import Event

log = structlog.get_logger(__name__)

READ_EVERY = timedelta(seconds=1)
"""How often the pauses are read where another process may have changed them: within this time, and that
of a batch, every replica knows of a pause."""


class PauseHandler:
    """The pauses of a service: what this process knows of them, and what it does about them."""

    def __init__(self, service: Service, due_rows: DueRows, *, shared: bool) -> None:
        self.gate: Gate = OPEN
        self._agendas = service.agendas
        self._name = service.name
        self._pauses = service.store.tables.pauses
        self._timers = service.store.tables.paused_timers
        self._positions = service.store.tables.positions
        self._due_rows = due_rows
        self._shared = shared
        self._read_at: datetime | None = None
        self._changed = False
        self._active: tuple[str, ...] | None = None
        self._publication = service.pauses_event
        self._is_news = False
        self._published_version = 0
        self._replayed_version = 0

    @property
    def count(self) -> int:
        """Return how many pauses are known that nobody has resumed."""
        return sum(pause.state is PauseState.PAUSED for pause in self.gate.open_pauses)

    @property
    def to_publish(self) -> bool:
        """Return whether others are to be told what is paused now: it is news, or this database has lost
        what it told them last."""
        return self._is_news or self._replayed_version > self._published_version

    def note_replayed(self, version: int) -> None:
        """Note the version of an event that was published before this database was restored."""
        self._replayed_version = max(self._replayed_version, version)

    def note_published(self, version: int) -> None:
        """Note that what is paused was published, in a transaction that has been committed."""
        self._is_news, self._published_version = False, version

    def forget(self) -> None:
        """Read the pauses before the next batch."""
        self._changed = True

    def refresh(self, database: Database, now: datetime) -> None:
        """Read the pauses if they may have changed since they were read."""
        if self._changed or (self._shared and not self._is_new(now)):
            with database.read() as connection:
                self.read(connection, now)

    def read(self, connection: Connection, now: datetime) -> None:
        """Read the pauses."""
        found = self._pauses.open(connection)
        self._tell(found)
        if found != list(self.gate.open_pauses):
            self.gate = gate(found, self._agendas)
            self._due_rows.set_gate(self.gate, now)
        self._note_active(connection, found)
        self._read_at, self._changed = now, False

    def event(self, connection: Connection, now: datetime) -> tuple[Event, int]:
        """Return the event that tells what is paused now, and its version, for a transaction that publishes
        it.

        The version is saved, since no clock grows for sure. A restored database has lost it: it is then above
        the time, and above what was replayed.
        """
        assert self._publication is not None
        at_least = max(to_microseconds(now) or 0, self._replayed_version)
        version = self._positions.next_version(connection, PAUSES, at_least)
        return self._publication.make(_active(self._pauses.open(connection)), version), version

    def _note_active(self, connection: Connection, found: Sequence[PauseRecord]) -> None:
        """Note whether others are to be told: something was paused or resumed, or this process starts on a
        database that was ever paused, perhaps a restored one."""
        active = tuple(pause.id for pause in _active(found))
        changed = active != self._active
        if self._active is None and not active:
            changed = bool(self._pauses.page(connection, limit=1))
        self._active = active
        self._is_news |= changed and self._publication is not None

    def _is_new(self, now: datetime) -> bool:
        read_at = self._read_at
        return read_at is not None and read_at <= now < read_at + READ_EVERY

    def look_again_at(self, now: datetime) -> datetime | None:
        """Return when to look whether another process has ended a pause."""
        return now + READ_EVERY if self._shared and not self.gate.is_open else None

    def execute(
        self, connection: Connection, command: Pause | Resume, now: datetime
    ) -> PauseRecord:
        """Execute a command. Raises `PauseError`."""
        if isinstance(command, Pause):
            return self._pause(connection, command, now)
        return self._resume(connection, command, now)

    def allowance(self, connection: Connection, now: datetime) -> Allowance | None:
        """Return how much the rates of resumes allow now, None if there are none."""
        ids = self.gate.limiting
        return Allowance(self._pauses.lock(connection, ids), now) if ids else None

    def save(self, connection: Connection, allowance: Allowance, now: datetime) -> None:
        """Save what was taken of an allowance; a resume whose backlog is through ends."""
        changed = allowance.changed(lambda pause: self._due_rows.is_looked_at(pause, now))
        self._pauses.replace(connection, changed)
        if any(pause.state is PauseState.RESUMED for pause in changed):
            self.forget()

    def _pause(self, connection: Connection, command: Pause, now: datetime) -> PauseRecord:
        if not is_target(command.target, self._agendas):
            known = (*targets(self._agendas), *(f"{kind}:ID" for kind in kinds(self._agendas)))
            raise UnknownPauseTarget(
                f"The {self._name} service has no target {command.target!r}: it has "
                f"{', '.join(known)}."
            )
        before = self._pauses.get(connection, command.id)
        if before is not None:
            return before
        pause = paused(command, now)
        self._pauses.add(connection, pause)
        return pause

    def _resume(self, connection: Connection, command: Resume, now: datetime) -> PauseRecord:
        self._pauses.lock(connection, [command.pause_id])
        before = self._pauses.get(connection, command.pause_id)
        if before is None:
            raise UnknownPause(f"There is no pause {command.pause_id!r}.")
        pause = resumed(before, command, now)
        if not any(touches(pause, agenda) for agenda in self._agendas):
            pause = msgspec.structs.replace(pause, through_at=pause.resumed_at)
        self._push_timers(connection, before, now)
        self._pauses.replace(connection, [pause])
        return pause

    def _push_timers(self, connection: Connection, ended: PauseRecord, now: datetime) -> None:
        """Let the timers that a pause has stopped go on, unless another pause stops them too."""
        active = [
            pause
            for pause in self._pauses.open(connection)
            if pause.state is PauseState.PAUSED and pause.id != ended.id
        ]
        for agenda in self._agendas:
            if agenda.instants or not touches(ended, agenda):
                continue
            others = [pause for pause in active if touches(pause, agenda)]
            for span in still_spans(ended, others, agenda, now):
                agenda.push(connection, self._timers.table, span, shared=self._shared)
            if not others:
                self._timers.forget(connection, agenda.name)

    def _tell(self, found: list[PauseRecord]) -> None:
        """Log what has been paused and resumed since it was last read."""
        known = {pause.id: pause.state for pause in self.gate.open_pauses}
        for pause in found:
            if known.pop(pause.id, None) is pause.state:
                continue
            if pause.state is PauseState.PAUSED:
                name = self._name if pause.target == SERVICE else pause.target
                log.warning(
                    "paused",
                    target=pause.target,
                    by=pause.paused_by,
                    reason=pause.reason,
                    since=f"{pause.paused_at:%F %T} UTC",
                    advice=f"`todoku resume {name}` lets it go on",
                )
            else:
                log.info("resuming", target=pause.target, by=pause.resumed_by, rate=pause.rate)
        for pause in self.gate.open_pauses:
            if pause.id in known:
                log.info("resumed", target=pause.target, pause_id=pause.id)


def _active(pauses: Sequence[PauseRecord]) -> list[PauseRecord]:
    return [pause for pause in pauses if pause.state is PauseState.PAUSED]

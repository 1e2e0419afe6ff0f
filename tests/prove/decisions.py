"""Runs a service's decisions on states in memory, without a database, a clock or an event loop.

What a service has stored is a mapping of rows: `(kind, key) → state`, as its store puts it into the
`StateCache`. A decision reads its part of it through the store's own unit of work, and returns another
mapping. Times are all the same instant, so that states that differ in nothing else are one.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect

from todoku.engine import Agenda, Due, RepublishEvents, Service
from todoku.events import Event

NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""The time of everything."""

Rows = Mapping[tuple[str, Hashable], Any]
"""What a service has stored: its states, by kind and key."""

COUNTERS: Final = ("attempts", "attempt")
"""Fields that count what may be repeated for ever: only whether it happened at all is distinguished."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision leads to: the rows that it has read or written, and its outputs; or its error.

    `written` is what the unit of work adds to tables that no decision reads, such as a ledger.
    """

    rows: Rows = {}
    result: Any = None
    events: tuple[Event, ...] = ()
    effects: tuple[object, ...] = ()
    written: tuple[Any, ...] = ()
    error: Exception | None = None


class EmptyDatabase:
    """A connection to a database without rows: a state that is not in memory does not exist."""

    dialect = sqlite_dialect()
    driver_connection = None
    returns_rows = False

    @property
    def connection(self) -> "EmptyDatabase":
        return self

    def in_transaction(self) -> bool:
        return True

    def exec_driver_sql(self, *_: object) -> "EmptyDatabase":
        return self

    execute = exec_driver_sql

    def mappings(self) -> tuple[()]:
        return ()


class States:
    """The rows as a `StateCache` that forgets nothing."""

    def __init__(self, rows: Rows) -> None:
        self.rows = dict(rows)

    def get(self, kind: str, keys: Collection[Hashable]) -> dict[Any, Any]:
        return {key: self.rows[kind, key] for key in keys if (kind, key) in self.rows}

    def put(self, kind: str, states: Mapping[Any, Any]) -> None:
        self.rows.update({(kind, key): state for key, state in states.items()})


EMPTY: Final[Any] = EmptyDatabase()


def decide(service: Service, rows: Rows, subject: object, handler: Callable[..., Any]) -> Outcome:
    """Return what `handler(state, subject, now)` leads to in a service that has stored these rows."""
    unit_of_work = _load(service, rows, subject)
    try:
        state, outputs = handler(unit_of_work.view(subject), subject, NOW)
        unit_of_work.put(subject, state)
    except Exception as error:
        return Outcome(error=error)
    touched = States({})
    unit_of_work.fill_cache(touched)
    outputs = [timeless(output) for output in outputs]
    return Outcome(
        rows={key: timeless(row) for key, row in touched.rows.items()},
        result=state,
        events=tuple(output for output in outputs if isinstance(output, Event)),
        effects=tuple(output for output in outputs if not isinstance(output, Event)),
        written=timeless(tuple(getattr(unit_of_work, "entries", ()))),
    )


def decide_due(service: Service, rows: Rows, due: Due) -> Outcome:
    """Return what the decision on a due row leads to."""

    def handler(state: Any, _: Due, now: datetime) -> Any:
        after, outputs = due.agenda.decide(state, now)
        due.agenda.require_pause(after, now)
        return after, outputs

    return decide(service, rows, due, handler)


def is_due(service: Service, rows: Rows, agenda: Agenda, key: str) -> bool:
    """Return whether a row has a due time: as time is no matter, it may have come."""
    due = Due(key, agenda)
    state = _load(service, rows, due).view(due)
    return state is not None and agenda.due_at_of(state) is not None


def state_of(service: Service, rows: Rows, key: str) -> Any:
    """Return what a service knows about an entity."""
    subject = RepublishEvents(key=key)
    return _load(service, rows, subject).view(subject)


def republished(service: Service, rows: Rows, key: str) -> Sequence[Event]:
    """Return the events that a service can publish again about an entity."""
    if service.republish is None:
        return ()
    return [timeless(event) for event, _ in service.republish(state_of(service, rows, key))]


def _load(service: Service, rows: Rows, subject: object) -> Any:
    cache: Any = States(rows)
    return service.store.load(EMPTY, [subject], cache)


def timeless(value: Any) -> Any:
    """Return the value with every time in it replaced by `NOW`, and every counter by at most 1."""
    if isinstance(value, datetime):
        return NOW
    if isinstance(value, tuple):
        return tuple(map(timeless, value))
    if not isinstance(value, msgspec.Struct):
        return value
    changed = {}
    for name in value.__struct_fields__:
        before = getattr(value, name)
        after = min(before, 1) if name in COUNTERS else timeless(before)
        if after is not before:
            changed[name] = after
    return msgspec.structs.replace(value, **changed) if changed else value

"""What a service tells the engine about itself.

A service is a table of who reacts to what, a store that loads and saves what those reactions touch,
and nothing more. Everything that makes it reliable is the engine's.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import Connection, MetaData

from todoku.contracts import Envelope, Event, ParkingEvent
from todoku.engine.cache import StateCache
from todoku.engine.messages import Due
from todoku.engine.tables import EngineTables

Decide = Callable[[Any, Any, datetime], tuple[Any, Sequence[Any]]]
"""A pure decision: `(state, message, now) → (state, events and effects)`."""

Republish = Callable[[Any], Sequence[tuple[Event, datetime]]]
"""A pure look at a state: the facts about an order that were decided in it, and when (UTC) each was
said. It leaves out what a reader that has lost everything could not hear again without harm."""

Subject = Any
"""What a decision is about: an event, a command or a `Due`."""


class UnitOfWork(Protocol):
    """What a batch touches, loaded once. Decisions see a part of it and leave a part of it."""

    def view(self, subject: Subject) -> Any:
        """The state that a decision about `subject` sees."""

    def put(self, subject: Subject, state: Any) -> None:
        """Keep the state that a decision about `subject` left."""

    def record(self, envelope: Envelope) -> None:
        """Note, for the service's own history, an event that it said, or heard and decided on."""

    def fill_cache(self, cache: StateCache) -> None:
        """Have remembered what this leaves in the database. To be called once that is committed."""


class Store(Protocol):
    """A service's tables. Each statement count is constant, however large the batch."""

    metadata: MetaData
    tables: EngineTables

    def load(
        self, connection: Connection, subjects: Sequence[Subject], cache: StateCache
    ) -> UnitOfWork:
        """Everything that these subjects touch, as remembered, else from the tables; locked, where
        others may write too."""

    def save(self, connection: Connection, unit_of_work: Any, now: datetime) -> None:
        """Write what has changed in the world that `load` gave."""


@dataclass(frozen=True, kw_only=True)
class Agenda:
    """What a service does of its own when the time has come: rows with a `due_at`.

    `due` finds what wants attention, the longest waiting first and up to a limit; `next_due_at` says
    when something does next; `decide` is the pure `(state, now) → (state, events and effects)`.
    """

    due: Callable[[Connection, datetime, int], list[Due]]
    next_due_at: Callable[[Connection], datetime | None]
    decide: Callable[[Any, datetime], tuple[Any, Sequence[Any]]]


@dataclass(frozen=True, kw_only=True)
class Service:
    """The story of a service: who reacts to what.

    `recalls` are decisions too: they take the service's own word for what its database has lost;
    with them go the reactions that undo or end it, so that both are replayed as they came.
    `reactions` decide on events of others, `commands` on what is asked of this service, the `agenda`
    on what has waited long enough. Commands of the types `once` have no key of their own that keeps
    them from having their effect twice: the engine gives them one. An effect that a decision returns
    is carried out by `effects` after the commit; what comes back is the next command. `parked_event`
    and `resolved_event` tell the others that a message about an order waits here for a person, and that
    it no longer does. `retells` gives the facts that can be said again about an order.
    """

    name: str
    store: Store
    event_handlers: Mapping[type[Event], Decide]
    commands: Mapping[type[Any], Decide] = field(default_factory=dict)
    once: Collection[type[Any]] = ()
    agenda: Agenda | None = None
    effects: Mapping[type[Any], Callable[[Any], Awaitable[Any]]] = field(default_factory=dict)
    parked_event: type[ParkingEvent] | None = None
    resolved_event: type[ParkingEvent] | None = None
    replay_handlers: Mapping[type[Event], Decide] = field(default_factory=dict)
    republish: Republish | None = None


class Topology:
    """Who reads what: computed from the services' own tables, so that nobody has to keep it."""

    def __init__(self, services: Iterable[Service]) -> None:
        readers: dict[type[Event], list[str]] = {}
        for service in services:
            for event in service.event_handlers:
                readers.setdefault(event, []).append(service.name)
        self._readers = {event: tuple(names) for event, names in readers.items()}

    def readers(self, event: type[Event]) -> tuple[str, ...]:
        """The services that react to an event and therefore owe its publisher a receipt."""
        return self._readers.get(event, ())

    def readers_of(self, publisher: str) -> tuple[str, ...]:
        """The services that react to anything that `publisher` says."""
        names = (
            name
            for event, readers in self._readers.items()
            if event.publisher == publisher
            for name in readers
        )
        return tuple(dict.fromkeys(names))

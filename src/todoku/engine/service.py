"""What a service declares to the engine: its handlers, its store, its agendas and its effects."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from operator import attrgetter
from typing import Any, Generic, Literal, Protocol, runtime_checkable

from sqlalchemy import Connection, MetaData

from todoku.engine.agenda import Agenda
from todoku.engine.cache import StateCache
from todoku.engine.dead_letters import DeadLetter
from todoku.engine.decisions import Decide, S
from todoku.engine.idempotency import AnswerFormat, Formats
from todoku.engine.pauses import PauseRecord
from todoku.engine.persons.part import Persons
from todoku.engine.saga import BySagaVersion, SagaStart
from todoku.engine.tables import EngineTables
from todoku.events import (
    ApiKeyEvent,
    AuditAnchoredEvent,
    Context,
    Envelope,
    ErasureEvent,
    Event,
    EventRegistry,
)

RepublishFunction = Callable[[S], Sequence[tuple[Event, datetime]]]
"""A pure function of a state: the events that were decided in it, and when (UTC) each occurred. It
omits what a subscriber with an empty database could not handle again without harm."""

DeadLetterEvent = Callable[[DeadLetter], Event | None]
"""Makes the event that tells other services of a dead letter; None if it concerns none of them."""


@dataclass(frozen=True)
class PausesPublication:
    """The event that tells other services what is paused here: its type, which has a `version`, and how one
    is made."""

    event: type[Event]
    make: Callable[[Sequence[PauseRecord], int], Event]


Subject = object
"""The subject of a decision: an event, a command or a `Due`."""


class UnitOfWork(Protocol[S]):
    """The states that a batch touches, loaded once. Decisions read a part of it and replace a part."""

    def view(self, subject: Subject) -> S:
        """Return the state that a decision about `subject` receives."""

    def put(self, subject: Subject, state: S) -> None:
        """Replace the state of `subject` by the one that a decision returned."""

    def record(self, envelope: Envelope) -> None:
        """Add an event to the service's own history: one that it published, or consumed and decided
        on."""

    def fill_cache(self, cache: StateCache) -> None:
        """Put the saved states into the cache. Call it after the commit only."""


@runtime_checkable
class InsertsContexts(Protocol):
    """A unit of work that inserts the rows of its agenda together with their contexts. For any other, the
    engine updates the rows with their contexts after they were saved."""

    def insert_context(self, key: str, context: Context) -> bool:
        """Keep the context of a row, to be inserted with it. Return False for a row that exists already: the
        engine updates that one."""


class Store(Protocol[S]):
    """A service's tables. The number of statements does not depend on the size of the batch.

    A store may have two more methods for databases that several processes share, with which a batch does not
    keep rows locked that all batches touch:

    - `load_unlocked`, which does as `load`, without locks on rows of which it can tell at the end
      whether what was read still holds;
    - `save_last(connection, unit_of_work)`, which changes these rows, as the last part of the transaction.

    If what was read no longer holds, saving raises `ConstraintViolated`, and the batch is decided anew with
    `load`.
    """

    metadata: MetaData
    tables: EngineTables

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> UnitOfWork[S]:
        """Load everything that these subjects touch: from the cache, else from the tables, with row
        locks where other processes may write."""

    def save(self, connection: Connection, unit_of_work: Any, now: datetime) -> None:
        """Write what has changed in the unit of work that `load` returned."""


def _unchanged(command: Any) -> Any:
    return command


def _never(command: object) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Service(Generic[S]):
    """Declare a service: its store and the handlers of its commands, events and due rows.

    `event_handlers` decide on events of other services. An event whose handling differs by saga version
    has a `BySagaVersion`. `command_handlers` decide on commands, the `agendas` on rows that are due.
    `replay_handlers` decide on the service's own events when its database has lost them, and on the
    events that end what they began, in the order of the stream. A command is executed again if the
    result of its commit is unknown, so its decision recognises it, by an id that it contains. An effect
    that a decision returns is executed by `effects` after the commit; its
    result is the next command. `parked_event` and `resolved_event` make the events that tell others
    that a message waits here for manual action, and that it no longer does. `pauses_event` is the one
    that tells them what is paused here, whenever that changes. `anchor_event` anchors the audit log at
    those that have `keep_anchor` as its handler. `key_event` tells of API keys those that have `keep_key` as
    its handler; only the service that has one creates keys. `persons` exports and erases what is personal;
    the event of its owner has `keep_erasure` as its handler, and as its replay handler. `republish` returns
    the events that can be published again about an entity. `publishes` lists the types of all events
    that this service publishes. `starts_from` tells where a service that is added to a running system
    begins: at the beginning of the stream, which holds about a day, or with what is published from now
    on. `saga` is set where commands start sagas. `not_in_stream` names what commands change without an
    event, such as "products": a database that is lost lacks it when it was recovered from the stream.
    `endings` are those of them that end an entity: callers may wait for one.
    Commands for which `waits_for_recovery` is true are refused until it is known that the database lacks
    nothing: what they take may be promised by an event that is still to be replayed. Those for which
    `waits_for_replay` is true are refused until the service's own events were replayed, if they have to be:
    their results are numbered after what was published. `before_replay` returns what any other command is
    executed as until then.
    `upkeep` runs from time to time, each in a transaction of its own, where several processes share the
    database: what they leave for one of them to do.
    `answers` tells by type how the states that commands lead to are kept for repeated requests, where
    that is not the whole state as JSON.
    """

    name: str
    store: Store[S]
    event_handlers: Mapping[type[Event], Decide[S] | BySagaVersion[S]]
    command_handlers: Mapping[type, Decide[S]] = field(default_factory=dict)
    agendas: Sequence[Agenda] = ()
    effects: Mapping[type, Callable[[Any], Awaitable[object]]] = field(default_factory=dict)
    parked_event: DeadLetterEvent | None = None
    resolved_event: DeadLetterEvent | None = None
    pauses_event: PausesPublication | None = None
    anchor_event: type[AuditAnchoredEvent] | None = None
    persons: Persons | None = None
    key_event: type[ApiKeyEvent] | None = None
    replay_handlers: Mapping[type[Event], Decide[S]] = field(default_factory=dict)
    republish: RepublishFunction[S] | None = None
    publishes: Collection[type[Event]] = ()
    starts_from: Literal["beginning", "now"] = "beginning"
    saga: SagaStart | None = None
    not_in_stream: str = ""
    endings: Collection[type[Event]] = ()
    waits_for_recovery: Callable[[Any], bool] = _never
    waits_for_replay: Callable[[Any], bool] = _never
    before_replay: Callable[[Any], Any] = _unchanged
    upkeep: Sequence[Callable[[Connection], object]] = ()
    answers: Mapping[type, AnswerFormat] = field(default_factory=dict)

    @cached_property
    def sets_aside(self) -> bool:
        """Return whether this service handles events on which nothing is decided: anchors of the audit logs
        of others, API keys, and erasures."""
        kept = (AuditAnchoredEvent, ApiKeyEvent, ErasureEvent)
        return any(issubclass(e, kept) for e in (*self.event_handlers, *self.replay_handlers))

    @property
    def formats(self) -> Formats:
        """Return how answers are kept: those of the service, and those about dead letters."""
        letters = AnswerFormat(keep=attrgetter("id"), rebuild=self.store.tables.dead_letters.get)
        return {DeadLetter: letters, **self.answers}

    def handler(self, event: type[Event], saga_version: int) -> Decide[S] | None:
        """Return the handler of an event in this version of the saga, None if it needs no decision."""
        handler = self.event_handlers.get(event)
        return handler.handler(saga_version) if isinstance(handler, BySagaVersion) else handler


class Topology:
    """The event types and their subscribers, computed from what the services declare."""

    def __init__(self, services: Iterable[Service]) -> None:
        services = tuple(services)
        self.registry = EventRegistry(
            (
                event
                for service in services
                for event in (*service.publishes, *service.event_handlers, *service.replay_handlers)
            ),
            saga_version=max((s.saga.version for s in services if s.saga is not None), default=1),
        )
        readers: dict[type[Event], list[str]] = {}
        for service in services:
            for event in service.event_handlers:
                readers.setdefault(event, []).append(service.name)
        self._readers = {event: tuple(names) for event, names in readers.items()}

    def readers(self, event: type[Event]) -> tuple[str, ...]:
        """Return the services that subscribe to an event and therefore confirm its delivery."""
        return self._readers.get(event, ())

    def readers_on(self, subject: str) -> tuple[str, ...]:
        """Return the services that subscribe to an event on this subject."""
        names = (readers for event, readers in self._readers.items() if event.subject == subject)
        return next(names, ())

    def subjects_of(self, publisher: str) -> frozenset[str]:
        """Return the subjects of the events of `publisher` that any service subscribes to."""
        return frozenset(event.subject for event in self._readers if event.publisher == publisher)

    def readers_of(self, publisher: str) -> tuple[str, ...]:
        """Return the services that subscribe to any event of `publisher`."""
        names = (
            name
            for event, readers in self._readers.items()
            if event.publisher == publisher
            for name in readers
        )
        return tuple(dict.fromkeys(names))

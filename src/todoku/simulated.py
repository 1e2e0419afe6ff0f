"""What a service contributes to the simulation of its system: clients, outside, expectations.

A service names its subclass of `SimulatedService` in its descriptor. Everything random comes from the
world, so that the same seed gives the same run.
"""

from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from datetime import datetime
from random import Random
from typing import Any, Protocol, TypeVar

import msgspec

R = TypeVar("R")

Action = Callable[[Random], Coroutine[Any, Any, None]]
"""Something that happens at times; the generator decides its sizes."""

Effects = Mapping[type[Any], Callable[[Any], Awaitable[Any]]]
"""What carries out each type of effect, as in `todoku.descriptor`."""


class Scheduled(msgspec.Struct, frozen=True, kw_only=True):
    """An action that happens again and again during the faults.

    A run draws one of `mean_seconds` for the time between two; 0 means never. A `family` is off in a
    quarter of the runs.
    """

    action: Action
    mean_seconds: tuple[float, ...]
    family: str


class World(Protocol):
    """The simulated run, as the part of one service sees it. Time is that of the event loop."""

    @property
    def orders(self) -> int:
        """How many orders are placed in this run."""

    @property
    def start(self) -> datetime:
        """When (UTC) the event loop's time was 0, by a clock that is right."""

    @property
    def seconds(self) -> float:
        """How long faults are injected."""

    @property
    def clocks_differ(self) -> bool:
        """Whether several processes of the service run, and the clocks of some have been set."""

    @property
    def able_since(self) -> float:
        """Since when a process of the service can write; now if none can, as its database does not answer."""

    def random(self, name: str) -> Random:
        """Return a random generator of that name, which depends on the seed alone."""

    def new_id(self, random: Random) -> str:
        """Return a new UUIDv7."""

    def rows(self, statement: str, *parameters: object) -> Sequence[tuple[Any, ...]]:
        """Return what is committed in the service's database, read without injected faults."""

    def rows_of(self, service: str, statement: str) -> Sequence[tuple[Any, ...]]:
        """Return what is committed in the database of another service: for checks only."""

    def is_stored(self, event_id: str) -> bool:
        """Return whether the broker has stored this event."""

    async def execute(self, command: Any, key: Any = None) -> Any:
        """Send a command to the service, with an `IdempotencyKey` or without; return its result, None if
        there is no reply."""

    async def execute_until_answered(self, command: Any) -> Any:
        """Send a command, and retry until there is a reply; return the result."""

    async def change_key(self, key: Any) -> bool:
        """Let the service save and publish an `ApiKey`; return whether it has answered that it did."""

    async def read(self, query: Callable[[Any, Any], R]) -> tuple[bool, R | None]:
        """Run a query on the database of a process: `query(service, connection)`. Return whether one was
        there to answer, and its result."""

    async def keep_up(self) -> None:
        """Let a process do the service's `upkeep` now."""

    def happen(self, kind: str, label: str) -> Random | None:
        """Record an occurrence; return a generator for its sizes, None if the plan leaves it out."""

    def inject(self, fault: str) -> Random | None:
        """Return a generator for the sizes of this fault if it is injected here and now, else None."""

    def note(self, what: str, text: str) -> None:
        """Add a line to the trace."""

    def fail(self, invariant: str, problem: str, *orders: str) -> None:
        """Record a violation of an invariant."""


class SimulatedService:
    """A service's part of the simulation. A subclass overrides what it needs."""

    @property
    def restorable(self) -> bool:
        """Return whether the database of the service may be restored in this run."""
        return False

    @property
    def unpublished_before(self) -> Collection[str]:
        """Return the subjects of events that the version before did not publish, though it decided the same:
        a database may be restored whose commits it made."""
        return ()

    def __init__(self, world: World) -> None:
        self.world = world

    def settings(self) -> Mapping[str, object]:
        """Return values of settings for this run, by name."""
        return {}

    def effects(self) -> Effects | None:
        """Return simulated effects; with None, those of the settings run, with injected faults."""
        return None

    def clients(self) -> Iterable[Coroutine[Any, Any, None]]:
        """Return what clients do; the system is not quiescent before all of them have ended."""
        return ()

    def scheduled(self) -> Mapping[str, Scheduled]:
        """Return by name what else happens while faults are injected."""
        return {}

    def published_elsewhere(self) -> Iterable[str]:
        """Return ids of committed events that have no outbox row."""
        return ()

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        """Forget what the database no longer has, since it was restored. `published` has the key and the
        type of each event of this service that is in the stream: this must come back."""

    async def enter_again(self, *, recovered: bool) -> None:
        """Enter again, as an operator does after a restore, what is lost and not in the stream. Called before
        the letter of the loss is retried, and again when the service has `recovered`."""

    def check_commit(self) -> None:
        """Check the invariants after a commit of this service."""

    def open_work(self) -> Iterable[str]:
        """Return what the service has still to end before the system is quiescent."""
        return ()

    def check_end(self) -> None:
        """Check the invariants once the system is quiescent."""

    def outcome(self) -> Mapping[str, int]:
        """Return totals to show, such as the number of orders in each status."""
        return {}

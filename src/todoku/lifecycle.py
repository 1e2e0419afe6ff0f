"""Declare the lifecycle of an entity once, as a table; everything else about its statuses follows from it.

    class ParcelStatus(Status):
        PACKED = "PACKED", Stage("It is packed.", on=(OrderPacked,))
        SENT = "SENT", Stage("It is sent.", after=("PACKED",), on=(ParcelSent,))

    PARCEL = Lifecycle("parcel", ParcelStatus)

Events may arrive in any sequence, so an entity only moves forward: an event whose status is already
passed is late and changes nothing, and an event whose status excludes the current one contradicts it.
Add a status by adding a row (and the migration of its table's CHECK constraint).

A *detour* is a status from which an entity may go back: a row with `returns_to`. While it lasts, events
are decided as in the statuses that it interrupts, which are those before it.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache, cached_property
from typing import Final, Generic, Self, TypeVar

import msgspec

OVERDUE_SECONDS: Final = 300.0
"""How long an entity may take to its end before it counts as overdue, where no other limit is given."""


def overdue_from(
    begun_at: datetime,
    deadline: datetime | None,
    after: timedelta = timedelta(seconds=OVERDUE_SECONDS),
    *,
    held: bool = False,
) -> datetime | None:
    """Return from when on an entity that has not ended is overdue: `after` it began, or at its deadline if
    that comes first. One that is `held` is overdue at its deadline only; without one never, which is None."""
    if held:
        return deadline
    overdue_at = begun_at + after
    return overdue_at if deadline is None else min(overdue_at, deadline)


Cause = type | str
"""What leads to a status: a type of event or answer, or a word for what is no message."""

Implied = Mapping[str, tuple[str | None, ...]]
"""What holds elsewhere: by entity, the statuses that it may have; None stands for "there is none"."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a lifecycle: what an entity in this status is, and how it got there.

    `after` names the statuses directly before it; an entity begins in a status without any. `on` are
    the causes that lead here, `publishes` the events that announce it. `implies` must hold once no
    event is pending. `failure` marks an end that is not the purpose of the entity. A status with
    `returns_to`, one of those before it, is a detour: the causes `returns_on` lead back there.
    `begins` says that an entity may also begin here, although there are statuses before it. `waits_for`
    is a word for what has to happen next.
    """

    meaning: str
    after: tuple[str, ...] = ()
    on: tuple[Cause, ...] = ()
    publishes: tuple[type, ...] = ()
    implies: Implied = {}
    failure: bool = False
    returns_to: str | None = None
    returns_on: tuple[Cause, ...] = ()
    begins: bool = False
    waits_for: str = "events"


class UnknownStatus(Exception):
    """A row has a status that this version does not know, because a newer version has written it. Nothing is
    decided on it here."""


UNKNOWN: Final = Stage(meaning="A newer version has written it.")
"""The row of a status that this version does not know."""


class Status(StrEnum):
    """A status with its row of the lifecycle: `NAME = "NAME", Stage(…)`."""

    _value_: str
    stage: Stage

    __hash__ = str.__hash__
    """That of `Enum` is a function in Python, called for each look-up of what follows from a status."""

    def __new__(cls, value: str, stage: Stage = Stage(meaning="")) -> Self:  # noqa: B008
        member = str.__new__(cls, value)
        member._value_ = value
        member.stage = stage
        return member

    @classmethod
    def stored(cls, value: str) -> Self:
        """Return the status of a row, also one that only a newer version knows: so that reading it fails
        nowhere, and deciding on it does (`require_known`)."""
        if value in cls._value2member_map_:
            return cls(value)
        status = str.__new__(cls, value)
        status._name_ = status._value_ = value
        status.stage = UNKNOWN
        return status

    def require_known(self, entity: str, key: str) -> None:
        """Raise `UnknownStatus` for the status of this entity if this version does not know it."""
        if self.stage is UNKNOWN:
            raise UnknownStatus(
                f"{entity} {key} has the status {self.value!r}, which this version does not know: a newer "
                "version has written it. Update this process; until then it decides nothing about it."
            )

    @cached_property
    def value(self) -> str:
        """Return the value. Every row that is stored reads it, and that of `Enum` is a function in Python."""
        return self._value_

    @cached_property
    def terminal(self) -> bool:
        """Return whether the entity has ended: no status comes after this one. Of one that this version does
        not know, it is unknown."""
        return self.value not in _left(type(self)) and self.stage is not UNKNOWN


@cache
def _left(statuses: type[Status]) -> frozenset[str]:
    """Return the names of the statuses that another one comes after."""
    return frozenset(name for status in statuses for name in status.stage.after)


S = TypeVar("S", bound=Status)


class InvalidLifecycle(Exception):
    """A lifecycle names a status that it does not have, never ends, or leaves it open what an event does."""


class Lifecycle(Generic[S]):
    """The lifecycle of the entity called `entity`, declared by the rows of `statuses`.

    Raises `InvalidLifecycle` if the rows do not fit together.
    """

    def __init__(self, entity: str, statuses: type[S]) -> None:
        self.entity = entity
        self.statuses = tuple(statuses)
        self.by_name = {status.value: status for status in self.statuses}
        self._before = {status: self._directly_before(status) for status in self.statuses}
        self._later = {status: self._ancestors(status, ()) for status in self.statuses}
        self._targets = self._all_targets()
        self._next = {
            (status, cause): self._decide(status, cause)
            for status in self.statuses
            for cause in self._targets
        }

    # What happens on an event.

    def next_status(self, status: S, cause: Cause) -> S | None:
        """Return the status after `cause`: `status` itself if the cause is late, None if it contradicts."""
        return self._next[status, cause]

    def contradictions(self, status: S) -> frozenset[Cause]:
        """Return the causes that contradict an entity in this status."""
        return frozenset(cause for cause in self._targets if self._next[status, cause] is None)

    # Where it may go.

    @property
    def terminal(self) -> tuple[S, ...]:
        """Return the statuses in which the entity has ended."""
        return tuple(status for status in self.statuses if status.terminal)

    def successors(self, status: S) -> frozenset[S]:
        """Return the statuses directly after this one."""
        return frozenset(other for other in self.statuses if status in self._before[other])

    def reachable(self, status: S) -> frozenset[S]:
        """Return every status that may come after this one, directly or not."""
        back = frozenset(self._returns_to(status))
        return back.union(other for other in self.statuses if self._lies_ahead(status, other))

    def rank(self, status: S) -> int:
        """Return the number of statuses on the longest way to this one."""
        return max((self.rank(before) + 1 for before in self._before[status]), default=0)

    # What is known from a status.

    def steps(self) -> Mapping[Cause, tuple[int, int]]:
        """Return every event of the lifecycle with its step: the rank of its status, and its place there.

        An event is late if one of a higher step arrived before it. One that several statuses have counts
        as that of the last. Those of a detour have no step: they occur at any time.
        """
        places: dict[Cause, tuple[int, int]] = {}
        for status in self.statuses:
            if status.stage.returns_to is not None:
                continue
            for place, cause in enumerate((*status.stage.on, *status.stage.publishes)):
                places[cause] = max((self.rank(status), place), places.get(cause, (0, 0)))
        return places

    def history(self, status: S) -> frozenset[Cause]:
        """Return the causes and the published events that every entity in this status has behind it."""
        ways = [self.history(before) for before in self._before[status]]
        common: frozenset[Cause] = frozenset.intersection(*ways) if ways else frozenset()
        return common | frozenset(status.stage.on) | frozenset(status.stage.publishes)

    # The same facts in other languages.

    def check(self, column: str, *, terminal: bool | None = None) -> str:
        """Return the SQL condition that the column holds a status, or a terminal one, or another one.

        It has no `IN (…)`: for a list of more than two values SQLite fills a table whenever a statement is
        executed, and a CHECK is evaluated for every row.
        """
        names = (s for s in self.statuses if terminal is None or s.terminal is terminal)
        return " OR ".join(f"{column} = '{name}'" for name in names)

    def diagram(self) -> str:
        """Return the lifecycle as a tree of text: from each status, the causes and where they lead."""
        drawn: set[S] = set()
        starts = (s for s in self.statuses if s.stage.begins or not self._before[s])
        return "\n".join(line for start in starts for line in self._tree(start, drawn))

    def _tree(self, status: S, drawn: set[S]) -> Iterator[str]:
        drawn.add(status)
        yield str(status)
        ways = [(o.stage.on, o) for o in self.statuses if status in self._before[o]]
        ways += [(status.stage.returns_on, back) for back in self._returns_to(status)]
        for number, (on, other) in enumerate(ways, start=1):
            last = number == len(ways)
            causes = ", ".join(map(name_of, on))
            branch = [f"{other} (see above)"] if other in drawn else list(self._tree(other, drawn))
            yield f"{'└' if last else '├'}─ {causes} ─▶ {branch[0]}"
            yield from (f"{' ' if last else '│'}     {line}" for line in branch[1:])

    # How the rows fit together.

    def _directly_before(self, status: S) -> tuple[S, ...]:
        if unknown := set(status.stage.after) - self.by_name.keys():
            raise InvalidLifecycle(
                f"{self.entity}: {status} comes after {', '.join(sorted(unknown))}, "
                f"which is no status: one of {', '.join(self.by_name)}."
            )
        back = status.stage.returns_to
        if back is not None and back not in status.stage.after:
            raise InvalidLifecycle(
                f"{self.entity}: {status} returns to {back}, which it does not interrupt: "
                "name it in `after`."
            )
        return tuple(self.by_name[name] for name in status.stage.after)

    def _returns_to(self, status: S) -> tuple[S, ...]:
        """Return the status to which a detour leads back; none if this is no detour."""
        back = status.stage.returns_to
        return () if back is None else (self.by_name[back],)

    def _ancestors(self, status: S, way: tuple[S, ...]) -> frozenset[S]:
        if status in way:
            raise InvalidLifecycle(
                f"{self.entity}: {status} comes after itself: {' ← '.join((*way, status))}. "
                "An entity only moves forward."
            )
        before = self._before[status]
        return frozenset(before).union(*(self._ancestors(b, (*way, status)) for b in before))

    def _all_targets(self) -> dict[Cause, tuple[S, ...]]:
        """Return the statuses to which each cause leads, forward or back from a detour."""
        targets: dict[Cause, dict[S, None]] = {}
        for status in self.statuses:
            for cause in status.stage.on:
                targets.setdefault(cause, {})[status] = None
            for cause in status.stage.returns_on:
                targets.setdefault(cause, {}).update(dict.fromkeys(self._returns_to(status)))
        return {cause: tuple(found) for cause, found in targets.items()}

    def _lies_ahead(self, status: S, target: S) -> bool:
        """Return whether the entity may get from this status to that one by going forward.

        In a detour, what lies ahead of a status that it interrupts lies ahead too.
        """
        if status in self._later[target]:
            return True
        interrupted = self._before[status] if status.stage.returns_to else ()
        passed = target is status or target in self._later[status]
        return not passed and any(before in self._later[target] for before in interrupted)

    def _decide(self, status: S, cause: Cause) -> S | None:
        if cause in status.stage.returns_on:
            return self.by_name[str(status.stage.returns_to)]
        targets = self._targets[cause]
        ahead = [target for target in targets if self._lies_ahead(status, target)]
        nearest = [target for target in ahead if not self._later[target] & set(ahead)]
        if len(nearest) > 1:
            raise InvalidLifecycle(
                f"{self.entity}: {name_of(cause)} leads from {status} to {' and to '.join(nearest)}: "
                "name it in one of them."
            )
        if nearest:
            return nearest[0]
        passed = any(target is status or target in self._later[status] for target in targets)
        return status if passed else None


def name_of(cause: Cause) -> str:
    """Return the name of an event's type, or the word for what is no message."""
    return cause if isinstance(cause, str) else cause.__name__

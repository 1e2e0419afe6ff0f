"""Declare the lifecycle of an entity once, as a table; everything else about its statuses follows from it.

    class ParcelStatus(Status):
        PACKED = "PACKED", Stage("It is packed.", on=(OrderPacked,))
        SENT = "SENT", Stage("It is sent.", after=("PACKED",), on=(ParcelSent,))

    PARCEL = Lifecycle("parcel", ParcelStatus)

Events may arrive in any sequence, so an entity only moves forward: an event whose status is already
passed is late and changes nothing, and an event whose status excludes the current one contradicts it.
Add a status by adding a row (and the migration of its table's CHECK constraint).
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Generic, Self, TypeVar

import msgspec

Cause = type | str
"""What leads to a status: a type of event or answer, or a word for what is no message."""

Implied = Mapping[str, tuple[str | None, ...]]
"""What holds elsewhere: by entity, the statuses that it may have; None stands for "there is none"."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a lifecycle: what an entity in this status is, and how it got there.

    `after` names the statuses directly before it; an entity begins in a status without any. `on` are
    the causes that lead here, `publishes` the events that announce it. `implies` must hold once no
    event is pending. `failure` marks an end that is not the purpose of the entity.
    """

    meaning: str
    after: tuple[str, ...] = ()
    on: tuple[Cause, ...] = ()
    publishes: tuple[type, ...] = ()
    implies: Implied = {}
    failure: bool = False


class Status(StrEnum):
    """A status with its row of the lifecycle: `NAME = "NAME", Stage(…)`."""

    _value_: str
    stage: Stage

    def __new__(cls, value: str, stage: Stage = Stage(meaning="")) -> Self:  # noqa: B008
        member = str.__new__(cls, value)
        member._value_ = value
        member.stage = stage
        return member

    @property
    def terminal(self) -> bool:
        """Return whether the entity has ended: no status comes after this one."""
        return self.value not in _left(type(self))


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
        return frozenset(other for other in self.statuses if status in self._later[other])

    def rank(self, status: S) -> int:
        """Return the number of statuses on the longest way to this one."""
        return max((self.rank(before) + 1 for before in self._before[status]), default=0)

    # What is known from a status.

    def steps(self) -> Mapping[Cause, tuple[int, int]]:
        """Return every event of the lifecycle with its step: the rank of its status, and its place there.

        An event is late if one of a higher step arrived before it.
        """
        places: dict[Cause, tuple[int, int]] = {}
        for status in self.statuses:
            for place, cause in enumerate((*status.stage.on, *status.stage.publishes)):
                places.setdefault(cause, (self.rank(status), place))
        return places

    def history(self, status: S) -> frozenset[Cause]:
        """Return the causes and the published events that every entity in this status has behind it."""
        ways = [self.history(before) for before in self._before[status]]
        common: frozenset[Cause] = frozenset.intersection(*ways) if ways else frozenset()
        return common | frozenset(status.stage.on) | frozenset(status.stage.publishes)

    # The same facts in other languages.

    def check(self, column: str, *, terminal: bool | None = None) -> str:
        """Return the SQL condition that the column holds a status, or a terminal one, or another one."""
        names = (s for s in self.statuses if terminal is None or s.terminal is terminal)
        quoted = ", ".join(f"'{name}'" for name in names)
        return f"{column} IN ({quoted})"

    def diagram(self) -> str:
        """Return the lifecycle as a tree of text: from each status, the causes and where they lead."""
        starts = (status for status in self.statuses if not self._before[status])
        return "\n".join(line for start in starts for line in self._tree(start, set()))

    def _tree(self, status: S, drawn: set[S]) -> Iterator[str]:
        drawn.add(status)
        yield str(status)
        after = [other for other in self.statuses if status in self._before[other]]
        for number, other in enumerate(after, start=1):
            last = number == len(after)
            causes = ", ".join(map(name_of, other.stage.on))
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
        return tuple(self.by_name[name] for name in status.stage.after)

    def _ancestors(self, status: S, way: tuple[S, ...]) -> frozenset[S]:
        if status in way:
            raise InvalidLifecycle(
                f"{self.entity}: {status} comes after itself: {' ← '.join((*way, status))}. "
                "An entity only moves forward."
            )
        before = self._before[status]
        return frozenset(before).union(*(self._ancestors(b, (*way, status)) for b in before))

    def _all_targets(self) -> dict[Cause, tuple[S, ...]]:
        causes = dict.fromkeys(cause for status in self.statuses for cause in status.stage.on)
        return {c: tuple(s for s in self.statuses if c in s.stage.on) for c in causes}

    def _decide(self, status: S, cause: Cause) -> S | None:
        targets = self._targets[cause]
        ahead = [target for target in targets if status in self._later[target]]
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

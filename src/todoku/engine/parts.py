"""Parts of an agenda: the rows that have to do with one thing, which can be paused by itself."""

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sqlalchemy import Column, ColumnElement, bindparam, exists, select

from todoku.database import among
from todoku.engine.pauses import PauseRecord, covers, part_of, still_until

if TYPE_CHECKING:
    from todoku.engine.agenda import Agenda

ONLY: Final = "only_names"
WITHOUT: Final = "without_names"


class AgendaParts:
    """The parts of an agenda, paused as `kind:name`, such as "product:coffee".

    A row is part of each name that `name` has in the rows of another table whose `member_of` is its `row`.
    `names_of` returns these names from the state.
    """

    def __init__(
        self,
        kind: str,
        *,
        row: Column[Any],
        member_of: Column[Any],
        name: Column[str],
        names_of: Callable[[Any], Collection[str]],
    ) -> None:
        self.kind = kind
        self.row, self.member_of, self.name = row, member_of, name
        self.names_of = names_of

    def only(self) -> ColumnElement[bool]:
        """Return the condition that a row is part of one of the names in the parameter `ONLY`."""
        return self._has(among(self.name, ONLY))

    def without(self) -> ColumnElement[bool]:
        """Return the condition that a row is part of none of the names in the parameter `WITHOUT`."""
        return ~self._has(among(self.name, WITHOUT))

    def has(self, name: str) -> ColumnElement[bool]:
        """Return the condition that a row is part of this name."""
        return self._has(self.name == bindparam(None, name, unique=True))

    def _has(self, named: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists(select(self.name).where(self.member_of == self.row, named))


class Selection(msgspec.Struct, frozen=True):
    """Rows of an agenda: those that are part of one of the names in `only`, if there are any, and of none
    in `without`. The `pauses` limit how many of them may be taken."""

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    pauses: tuple[PauseRecord, ...] = ()


class StillSpan(msgspec.Struct, frozen=True):
    """From when until when the timers of those rows stood still that are part of all names in `only` and
    of none in `without`."""

    since: datetime
    until: datetime
    only: Sequence[str] = ()
    without: Sequence[str] = ()


def still_spans(
    ended: PauseRecord, others: Sequence[PauseRecord], agenda: "Agenda", now: datetime
) -> Iterator[StillSpan]:
    """Yield for how long which timers stood still by a pause that ends now; each row is in one of the spans
    at most. What the `others` cover, which still stop some of these timers, is left to them."""
    own = part_of(ended, agenda)
    only = () if own is None else (own,)
    whole = [pause for pause in others if covers(pause, agenda)]
    parts = [
        (pause, name)
        for pause in sorted(others, key=lambda pause: pause.paused_at)
        if not covers(pause, agenda) and (name := part_of(pause, agenda)) is not None
    ]
    passed: list[str] = []
    for pause, name in parts:
        if still := still_until(ended, [*whole, pause], now):
            yield StillSpan(*still, only=(*only, name), without=tuple(passed))
        passed.append(name)
    if still := still_until(ended, whole, now):
        yield StillSpan(*still, only=only, without=tuple(passed))

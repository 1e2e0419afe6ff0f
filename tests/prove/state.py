"""What a state of an exploration consists of: small tuples of numbers, quick to compare."""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Case(NamedTuple):
    """What there is about one entity, in numbers: `plan` says which, and the others are of the tables of
    `Cases`; `waiting`, `handled` and `asked` are sets of bits."""

    plan: int
    rows: tuple[int, ...]
    waiting: int = 0
    handled: int = 0
    calls: tuple[int, ...] = ()
    outside: tuple[tuple[int, int], ...] = ()
    asked: int = 0
    written: int = 0


class Common(NamedTuple):
    """What the entities share: the rows of each service that are about none of them."""

    rows: tuple[int, ...]
    asked: int = 0
    written: int = 0


class Step(NamedTuple):
    """A step of one entity: what happens, and the case and the common part afterwards.

    `progress` says that it happens by itself, without a client and without a fault.
    """

    text: str
    case: int
    common: int
    progress: bool


class Broken(Exception):
    """Raised by a step that breaks an invariant; `step` is what happened, the message says how."""

    def __init__(self, step: str, problem: str) -> None:
        super().__init__(problem)
        self.step = step
        self.problem = problem


class Steps(NamedTuple):
    """The steps of a case that change anything, and how many were `tried`; the one that is `broken`.

    `after` are the cases and common parts to which they lead, each once.
    """

    steps: Sequence[Step]
    after: Collection[tuple[int, int]]
    broken: Broken | None
    tried: int

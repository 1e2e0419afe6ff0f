"""Decides which faults are injected into a run, how often, and when.

All of it follows from the seed. Each kind has a random generator of its own, and each occurrence
has a name (`kill#2`, `crash-before-commit:orders#1`) and a generator of its own for its sizes. So
leaving one out does not change the others, as far as the changed run still reaches them: that makes
a failing run shrinkable.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from random import Random
from typing import Final

import msgspec

from todoku.engine.failpoints import POINTS
from todoku.lab.simulation.trace import Trace

CALM_SHARE: Final = 0.25
"""The share of runs in which a whole family of faults is off."""

CHANCES: Final[Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "network": {
        "drop-delivery": (0.0, 0.1, 0.4),
        "duplicate-delivery": (0.0, 0.1, 0.4),
        "delay-delivery": (0.0, 0.1, 0.4),
        "reorder-deliveries": (0.0, 0.1, 0.4),
        "drop-ack": (0.0, 0.1, 0.4),
        "drop-notify": (0.0, 0.1, 0.4),
        "duplicate-notify": (0.0, 0.1, 0.4),
        "delay-notify": (0.0, 0.1, 0.4),
        "lose-answer": (0.0, 0.1, 0.4),
        "refuse-publish": (0.0, 0.1, 0.4),
    },
    "broker": {"small-stream": (0.0, 0.5)},
    "crash": {f"crash-{point}": (0.0, 0.01, 0.05) for point in POINTS},
    "disk": {
        "slow-commit": (0.0, 0.1, 0.4),
        "lose-commit-answer": (0.0, 0.02, 0.1),
        "disk-error": (0.0, 0.02),
    },
    "database": {
        "slow-statement": (0.0, 0.1, 0.4),
        "slow-decision": (0.0, 0.9),
        "slow-unlocked": (0.0, 0.3, 0.9),
        "stalled-writes": (0.0, 0.01, 0.05),
    },
    "clock": {"clock-jump": (0.0, 0.5)},
    "effect": {
        "effect-unreachable": (0.0, 0.1, 0.3),
        "effect-reply-lost": (0.0, 0.1, 0.3),
        "effect-late": (0.0, 0.1, 0.3),
    },
    "poison": {"newer-version": (0.0, 0.3)},
}
"""By family and kind: probabilities, of which a run draws one, that it is injected where it can be."""

INTERVALS: Final[Mapping[str, Mapping[str, tuple[float, ...]]]] = {
    "network": {"partition": (0.0, 20.0)},
    "broker": {
        "outage": (0.0, 30.0),
        "wipe": (0.0, 60.0),
        "purge": (0.0, 60.0),
        "roll-back": (0.0, 0.0, 30.0),
        "delete-durable": (0.0, 60.0),
        "small-messages": (0.0, 0.0, 30.0),
    },
    "crash": {"kill": (0.0, 10.0, 30.0), "stop": (0.0, 40.0), "scale-down": (0.0, 60.0)},
    "disk": {"database-away": (0.0, 30.0)},
    "pause": {"pause": (0.0, 0.0, 15.0)},
    "clock": {"set-clock": (0.0, 0.0, 20.0)},
    "restore": {"restore": (0.0, 0.0, 15.0)},
    "poison": {"poison": (0.0, 2.0, 15.0)},
}
"""By family and kind: the mean seconds between two, of which a run draws one; 0 means never."""

LOSSES: Final = frozenset(
    {"wipe", "purge", "roll-back", "small-stream", "small-messages", "delete-durable", "poison"}
)
"""What the broker must not lose, and nobody may forge, in a run that restores databases: a restored
database is rebuilt from what the broker has."""

KINDS: Final = {
    kind: (family, levels)
    for table in (CHANCES, INTERVALS)
    for family, kinds in table.items()
    for kind, levels in kinds.items()
}
"""The family and the levels of every kind of fault that does not depend on the services."""


class Occurrence(msgspec.Struct, frozen=True, order=True):
    """An injected fault or a placed order, `at` seconds after the start."""

    at: float
    kind: str
    label: str


class _FaultSource:
    """The random generator and the probability of one kind of fault at one place."""

    __slots__ = ("level", "random", "strikes")

    def __init__(
        self, seed: int, kind: str, where: str, levels: Sequence[float], calm: bool
    ) -> None:
        self.random = Random(f"{seed} {kind}:{where}")
        level = self.random.choice(levels)
        self.level = 0.0 if calm else level
        self.strikes = 0


class Faults:
    """Inject the faults of one run. `only` names the occurrences that may happen; None allows all."""

    def __init__(
        self, seed: int, only: Collection[str] | None, trace: Trace, now: Callable[[], float]
    ) -> None:
        self.occurred: list[Occurrence] = []
        self._seed = seed
        self._only = None if only is None else frozenset(only)
        self._trace = trace
        self._now = now
        self._healed = False
        self._sources: dict[tuple[str, str], _FaultSource] = {}
        self._kinds: dict[str, tuple[str, Sequence[float]]] = {}
        self._calm: dict[str, bool] = {}
        for kind, (family, levels) in KINDS.items():
            self.add_kind(kind, family, levels)

    def add_kind(self, kind: str, family: str, levels: Sequence[float]) -> None:
        """Add a kind of fault, of which a run draws one of the levels."""
        self._kinds[kind] = (family, levels)
        if family not in self._calm:
            self._calm[family] = Random(f"{self._seed} family {family}").random() < CALM_SHARE

    @property
    def counts(self) -> Counter[str]:
        """Count the injected faults by kind."""
        kinds = (occurrence.kind for occurrence in self.occurred)
        return Counter(kind for kind in kinds if kind in self._kinds)

    def draws(self, kind: str) -> bool:
        """Return whether this run injects this kind of fault."""
        return self._source(kind, "").level > 0.0

    def heal(self) -> None:
        """Inject nothing from now on."""
        self._healed = True

    def strike(self, kind: str, where: str = "") -> Random | None:
        """Return a generator for the sizes of this fault if it is injected here and now, else None."""
        if self._healed:
            return None
        dice = self._source(kind, where)
        if dice.level == 0.0 or dice.random.random() >= dice.level:
            return None
        dice.strikes += 1
        return self.happen(kind, f"{_name(kind, where)}#{dice.strikes}")

    def schedule(self, kind: str, until: float) -> list[Occurrence]:
        """Return when this fault is to be injected in the first `until` seconds."""
        dice = self._source(kind, "")
        occurrences: list[Occurrence] = []
        at = 0.0
        while dice.level and (at := at + dice.random.expovariate(1 / dice.level)) < until:
            occurrences.append(Occurrence(at, kind, f"{kind}#{len(occurrences) + 1}"))
        return occurrences

    def happen(self, kind: str, label: str) -> Random | None:
        """Record an occurrence now; return a generator for its sizes, or None if it is left out."""
        if self._only is not None and label not in self._only:
            return None
        self.occurred.append(Occurrence(self._now(), kind, label))
        self._trace.note("world", "fault", label)
        return Random(f"{self._seed} {label}")

    def _source(self, kind: str, where: str) -> _FaultSource:
        dice = self._sources.get((kind, where))
        if dice is None:
            family, levels = self._kinds[kind]
            calm = self._calm[family] or (kind in LOSSES and self.draws("restore"))
            dice = self._sources[kind, where] = _FaultSource(self._seed, kind, where, levels, calm)
        return dice


def _name(kind: str, where: str) -> str:
    return f"{kind}:{where}" if where else kind

"""The parameters of a simulated run, and its outcome."""

import msgspec

from todoku.lab.simulation.faults import Occurrence
from todoku.lab.simulation.invariants import Violation
from todoku.system import SYSTEM

SYSTEM_NAME = str(SYSTEM.default)


class SimulationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of one run. The same plan gives the same run, to the byte.

    `only` names the orders and faults that may happen (`order#1`, `kill#2`); None allows all of the
    seed. After `chaos_seconds` no fault is injected any more, and the system must be quiescent within
    `settle_seconds`: an event may be sent again after 40 s, and the carrier answer after 100 s more. Where
    clocks have jumped, it is later by the most they may have jumped. `system` names the system as the
    setting of that name does.

    With `replicas` = 1, each service is one process with a SQLite database; with more, that many processes
    share a database with PostgreSQL's row locks. With 0 the seed decides. `partitions` is the setting of that
    name; with 0 each process that starts draws another one, as while operators change it, until no fault is
    injected any more.
    """

    seed: int
    orders: int = 5
    chaos_seconds: float = 60.0
    settle_seconds: float = 180.0
    only: tuple[str, ...] | None = None
    system: str = SYSTEM_NAME
    replicas: int = 0
    partitions: int = 1


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run: violations, injected faults, and the time until it was quiescent.

    `occurred` lists orders and faults in order; their labels, as `SimulationPlan.only`, repeat the
    run. `events` counts the records of its trace, and `digest` is their hash.
    """

    plan: SimulationPlan
    violations: tuple[Violation, ...]
    statuses: dict[str, int]
    faults: dict[str, int]
    occurred: tuple[Occurrence, ...]
    events: int
    settled_after_seconds: float | None
    digest: str

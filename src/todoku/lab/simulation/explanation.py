"""Explains a run that broke an invariant: the shortest schedule, what happened, how to repeat it."""

import msgspec

from todoku.lab.simulation.plan import SYSTEM_NAME, SimulationResult
from todoku.lab.simulation.run import replay
from todoku.lab.simulation.shrink import shrink
from todoku.system import SYSTEM


class Explanation(msgspec.Struct, frozen=True):
    """How a run broke an invariant.

    `schedule` lists the orders and faults that are needed, `happened` the records of the trace that
    concern `orders`, and `again` is the command that repeats the run.
    """

    seed: int
    invariant: str
    problem: str
    orders: tuple[str, ...]
    schedule: tuple[str, ...]
    happened: tuple[str, ...]
    again: str

    def __str__(self) -> str:
        return "\n".join(
            (
                f"seed {self.seed} breaks {self.invariant}: {self.problem}",
                "",
                f"  The shortest schedule found, {len(self.schedule)} orders and faults:",
                *(f"    {line}" for line in self.schedule),
                "",
                "  Trace:",
                *(f"    {line}" for line in self.happened),
                "",
                f"  Repeat: {self.again}",
            )
        )


def explain(failed: SimulationResult, *, seconds_max: float = 20.0) -> Explanation:
    """Return the explanation of a failed run, shrunk for at most about `seconds_max`."""
    shortest, trace = replay(shrink(failed, seconds_max=seconds_max).plan)
    plan, violation = shortest.plan, shortest.violations[0]
    chosen = f"{SYSTEM.variable}={plan.system} " if plan.system != SYSTEM_NAME else ""
    again = [f"{chosen}todoku simulate --trace", f"--seed {plan.seed}", f"--orders {plan.orders}"]
    if plan.replicas:
        again.append(f"--replicas {plan.replicas}")
    if plan.partitions != 1:
        again.append(f"--partitions {plan.partitions}")
    if plan.only is not None:
        again.append(f"--only {','.join(plan.only) or 'nothing'}")
    return Explanation(
        seed=plan.seed,
        invariant=violation.invariant,
        problem=violation.problem,
        orders=violation.orders,
        schedule=tuple(f"{each.at:9.3f}  {each.label}" for each in shortest.occurred),
        happened=tuple(trace.lines(violation.orders or None)),
        again=" ".join(again),
    )

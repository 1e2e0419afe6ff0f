"""A run that broke the promise, in words: how, by the shortest way there, and how to see it again."""

import msgspec

from todoku.lab.simulation.run import Result, replay
from todoku.lab.simulation.shrink import shrink


class Explanation(msgspec.Struct, frozen=True):
    """How a run broke the promise.

    `schedule` has the orders and faults that it takes, `happened` what came of them as far as it
    concerns `orders`, and `again` is the command that shows it all.
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
                f"  The shortest schedule that was found, {len(self.schedule)} orders and faults:",
                *(f"    {line}" for line in self.schedule),
                "",
                "  What led there:",
                *(f"    {line}" for line in self.happened),
                "",
                f"  Again: {self.again}",
            )
        )


def explain(failed: Result, *, seconds_max: float = 20.0) -> Explanation:
    """Explain a failed run, by the shortest one that was found within about `seconds_max`."""
    shortest, trace = replay(shrink(failed, seconds_max=seconds_max).plan)
    plan, failure = shortest.plan, shortest.failures[0]
    again = ["todoku simulate --trace", f"--seed {plan.seed}", f"--orders {plan.orders}"]
    if plan.only is not None:
        again.append(f"--only {','.join(plan.only) or 'nothing'}")
    return Explanation(
        seed=plan.seed,
        invariant=failure.invariant,
        problem=failure.problem,
        orders=failure.orders,
        schedule=tuple(f"{each.at:9.3f}  {each.label}" for each in shortest.occurred),
        happened=tuple(trace.lines(failure.orders or None)),
        again=" ".join(again),
    )

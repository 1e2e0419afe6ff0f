"""Shrinks the schedule of a failed run to the orders and faults that are needed."""

import time
from collections.abc import Callable, Collection

import msgspec

from todoku.lab.simulation.plan import SimulationPlan, SimulationResult
from todoku.lab.simulation.run import simulate

Rerun = Callable[[SimulationPlan], SimulationResult]


def shrink(
    result: SimulationResult, *, seconds_max: float = 20.0, rerun: Rerun = simulate
) -> SimulationResult:
    """Return the run with the fewest orders and faults found to break the same invariant.

    Searches for at most about `seconds_max` of real time; `rerun` runs a plan. Leaves out all but the orders
    first, as many bugs need no fault; then whole kinds, then halves, quarters and so on of the rest, finally
    each occurrence alone (Zeller and Hildebrandt's delta debugging, without its complements).
    """
    search = _Search(time.monotonic() + seconds_max, rerun)
    best = search.without(result, _all_but_orders(result)) or result
    for kind in dict.fromkeys(each.kind for each in result.occurred):
        labels = {each.label for each in best.occurred if each.kind == kind}
        best = search.without(best, labels) or best
    size = len(best.occurred)
    while size := size // 2:
        best = search.without_chunks(best, size)
    while (shorter := search.without_chunks(best, 1)) is not best:
        best = shorter
    return best


def _all_but_orders(result: SimulationResult) -> set[str]:
    return {each.label for each in result.occurred if each.kind != "order"}


class _Search:
    def __init__(self, until: float, rerun: Rerun) -> None:
        self._until = until
        self._rerun = rerun

    def without_chunks(self, best: SimulationResult, size: int) -> SimulationResult:
        """Leave out as many chunks of `size` occurrences as possible, starting with the latest."""
        place = len(best.occurred)
        while (place := place - size) > -size:
            chunk = best.occurred[max(place, 0) : place + size]
            shorter = self.without(best, {each.label for each in chunk})
            if shorter is not None:
                best = shorter
                place = min(place, len(best.occurred))
        return best

    def without(self, best: SimulationResult, labels: Collection[str]) -> SimulationResult | None:
        """Return the same run without these, None unless it breaks the same invariant."""
        if not labels or time.monotonic() > self._until:
            return None
        only = tuple(each.label for each in best.occurred if each.label not in labels)
        shorter = self._rerun(msgspec.structs.replace(best.plan, only=only))
        same = (
            shorter.violations and shorter.violations[0].invariant == best.violations[0].invariant
        )
        return shorter if same and len(shorter.occurred) < len(best.occurred) else None

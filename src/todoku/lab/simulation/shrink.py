"""Shrinks the schedule of a failed run to the orders and faults that are needed."""

import time
from collections.abc import Collection

import msgspec

from todoku.lab.simulation.plan import SimulationResult
from todoku.lab.simulation.run import simulate


def shrink(result: SimulationResult, *, seconds_max: float = 20.0) -> SimulationResult:
    """Return the run with the fewest orders and faults found to break the same invariant.

    Searches for at most about `seconds_max` of real time.

    Leaves out whole kinds first, then halves, quarters and so on of the rest, finally each
    occurrence alone (Zeller and Hildebrandt's delta debugging, without its complements).
    """
    until = time.monotonic() + seconds_max
    best = result
    for kind in dict.fromkeys(each.kind for each in result.occurred):
        labels = {each.label for each in best.occurred if each.kind == kind}
        best = _without(best, labels, until) or best
    size = len(best.occurred)
    while size := size // 2:
        best = _without_chunks(best, size, until)
    while (shorter := _without_chunks(best, 1, until)) is not best:
        best = shorter
    return best


def _without_chunks(best: SimulationResult, size: int, until: float) -> SimulationResult:
    """Leave out as many chunks of `size` occurrences as possible, starting with the latest."""
    place = len(best.occurred)
    while (place := place - size) > -size:
        chunk = best.occurred[max(place, 0) : place + size]
        shorter = _without(best, {each.label for each in chunk}, until)
        if shorter is not None:
            best = shorter
            place = min(place, len(best.occurred))
    return best


def _without(
    best: SimulationResult, labels: Collection[str], until: float
) -> SimulationResult | None:
    """Return the same run without these, None unless it breaks the same invariant."""
    if not labels or time.monotonic() > until:
        return None
    only = tuple(each.label for each in best.occurred if each.label not in labels)
    shorter = simulate(msgspec.structs.replace(best.plan, only=only))
    same = shorter.violations and shorter.violations[0].invariant == best.violations[0].invariant
    return shorter if same and len(shorter.occurred) < len(best.occurred) else None

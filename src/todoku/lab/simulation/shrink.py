"""Finds a short schedule of faults that still breaks the promise."""

import time
from collections.abc import Collection

import msgspec

from todoku.lab.simulation.run import Result, simulate


def shrink(result: Result, *, seconds_max: float = 20.0) -> Result:
    """The run with the fewest orders and faults that were found, within about `seconds_max` of real
    time, to break the same invariant as this failed one.

    Whole kinds are left out first, then halves, quarters and so on of what is left, at last each
    occurrence by itself (Zeller and Hildebrandt's delta debugging, without its complements).
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


def _without_chunks(best: Result, size: int, until: float) -> Result:
    """Leave out as many chunks of `size` occurrences as possible, the latest first."""
    place = len(best.occurred)
    while (place := place - size) > -size:
        chunk = best.occurred[max(place, 0) : place + size]
        shorter = _without(best, {each.label for each in chunk}, until)
        if shorter is not None:
            best = shorter
            place = min(place, len(best.occurred))
    return best


def _without(best: Result, labels: Collection[str], until: float) -> Result | None:
    """The same run without these, if it still fails in the same way."""
    if not labels or time.monotonic() > until:
        return None
    only = tuple(each.label for each in best.occurred if each.label not in labels)
    shorter = simulate(msgspec.structs.replace(best.plan, only=only))
    same = shorter.failures and shorter.failures[0].invariant == best.failures[0].invariant
    return shorter if same and len(shorter.occurred) < len(best.occurred) else None

"""Plants bugs into the engine and the services, one at a time: the simulation must find each.

`make mutants` prints which check found which bug at which seed. A check that no mutant exercises
proves nothing; a mutant that is not found shows a missing check. The bugs are in `planted/`. Each
wraps what is handed to a process (todoku.lab.simulation.wiring): no private name is used.
"""

import sys
from collections.abc import Collection
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation import planted
from simulation.planting import MUTANTS, Mutant
from todoku.lab.simulation import SimulationPlan, Violation, simulate

__all__ = ["MUTANTS", "Mutant", "hunt", "planted"]

SEEDS_MAX = 300
"""How many runs to try before a mutant counts as not found."""

KNOWN_SEEDS = {
    "low-stock-not-told": 4,
    "threshold-not-replayed": 31,
    "product-changed-before-the-replay": 331,
    "pieces-cancelled-before-the-replay": 122,
    "lost-change-never-replayed": 91,
    "odd-uuid-ends-process": 33,
    "reservation-decided-anew": 8,
    "second-shipment": 8,
    "order-placed-anew": 6,
    "interrupted-recovery-forgotten": 18,
    "earlier-epochs-forgotten": 38,
    "lease-of-a-wrong-clock-kept": 34,
    "restored-copy-believed": 18,
    "epoch-goes-on-after-a-restore": 18,
    "feed-goes-on-above-open-transactions": 62,
    "due-rows-waited-for": 37,
    "restock-wakes-nobody": 24,
    "release-wakes-nobody": 17,
    "waiting-order-not-replayed": 106,
    "every-failed-attempt-published": 20,
    "hold-confirmed-and-forgotten": 2,
    "released-shipment-stays-held": 2,
    "hold-never-expires": 2,
    "pause-forgotten-at-restart": 24,
    "pause-of-the-carrier-ignored": 12,
    "timers-run-on-while-paused": 12,
    "pause-of-a-product-ignored": 38,
    "timers-of-a-paused-product-run-on": 38,
    "resume-of-a-product-pushes-all-timers": 12,
    "end-of-a-pause-not-noted": 6,
    "version-of-pauses-by-the-clock": 38,
    "carrier-before-commit": 68,
    "stream-forgotten-at-the-next-commit": 3,
    "never-sent-again": 2,
    "stale-cache-used": 4,
    "neighbours-poisoned": 10,
    "poison-never-parked": 5,
    "invalid-encoding-ends-process": 19,
    "no-compensation": 2,
    "correction-without-entry": 3,
    "request-not-durable": 4,
    "lower-version-wins": 3,
    "failed-attempt-not-published": 15,
    "shipments-not-locked": 3,
    "request-never-published": 4,
    "cancelled-order-shipped-when-it-arrives": 4,
    "cancelled-stock-kept": 4,
    "price-of-the-request-taken": 4,
    "deadline-too-early": 4,
    "cancelled-line-stays-reserved": 13,
    "replaced-price-counts-for-ever": 3,
    "due-rows-not-locked": 3,
    "late-event-overwrites-status": 13,
    "deadline-forgotten": 6,
    "outbox-deleted-at-publish": 2,
    "stream-epoch-ignored": 7,
    "undecodable-dropped": 3,
    "forgotten-call-believed": 106,
    "known-adjustment-entered-again": 506,
    "lease-ignored": 7,
    "ended-when-shipping-confirms": 33,
    "suspects-dropped": 2,
    "lost-commit-answer-believed": 4,
    "cursor-skips-the-rest-of-a-batch": 2,
    "claim-never-expires": 3,
    "failed-attempt-not-kept": 15,
    "recovery-not-awaited": 18,
    "release-never-published": 4,
    "cancelled-shipment-still-due": 6,
    "deadline-never-fires": 6,
    "key-saved-outside-the-transaction": 7,
    "cancelled-order-reserved-when-it-arrives": 10,
    "rate-of-a-resume-ignored": 503,
    "cancelled-line-reserved-when-the-order-arrives": 47,
    "cancelled-line-subtracted-twice": 52,
    "cancelled-line-shipped": 26,
    "held-behind-the-pivot": 16,
    "time-without-zone-ends-process": 14,
    "deducted-twice": 18,
    "one-release-closes-all-holds": 19,
    "due-rows-forgotten-at-start": 252,
    "request-that-overtakes-its-order-dropped": 106,
    "one-lost-message-overlooked": 45,
    "place-noted-too-far": 18,
    "difference-added-twice": 1,
    "amounts-written-as-read": 3,
    "what-was-read-not-checked": 3,
    "owners-positions-ignored": 1,
    "positions-of-the-dead-forgotten": 1,
    "revocation-never-published": 23,
    "revocation-never-replayed": 193,
    "revocation-not-kept": 23,
    "late-creation-revives-a-key": 23,
    "reserved-pieces-corrected-away": 19,
    "hold-refusal-never-published": 16,
    "asking-again-is-another-request": 8,
    "older-threshold-counts": 331,
    "shipped-as-reserved": 3,
    "slot-that-no-durable-reads": 9,
    "partition-begins-where-the-stream-ends": 5,
}
"""For mutants that the first seeds do not find, one that did: it is tried first, which saves time."""


class Found(msgspec.Struct, frozen=True):
    """The seed and the violation that found a mutant."""

    seed: int
    violation: Violation


def hunt(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> Found | None:
    """Return a seed that finds the mutant, None if none does."""
    for seed in (KNOWN_SEEDS.get(mutant.name, 1), *range(1, seeds_max + 1)):
        plan = SimulationPlan(
            seed=seed,
            replicas=mutant.replicas,
            orders=mutant.orders,
            partitions=mutant.partitions,
        )
        if violations := simulate(plan, mutant.plant()).violations:
            return Found(seed, violations[0])
    return None


def main(names: Collection[str]) -> int:
    """Hunt the mutants of these names, or all; return how many were not found."""
    escaped = 0
    for each in MUTANTS:
        if names and each.name not in names:
            continue
        found = hunt(each)
        escaped += found is None
        told = f"NOT FOUND in {SEEDS_MAX} seeds"
        if found is not None:
            told = f"seed {found.seed:>2}  {found.violation.invariant}  {found.violation.problem}"
        print(f"{each.name:<28} {told:.110}", flush=True)
    return escaped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

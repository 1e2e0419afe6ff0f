"""Tests that no invariant is broken in 120 seeds of injected faults; `make seeds` runs a thousand."""

from collections.abc import Collection
from functools import cache

import pytest

from todoku.lab.simulation import SimulationPlan, explain, simulate
from todoku.lab.simulation.faults import KINDS

SEEDS_A_TEST = 20
EVERY_KIND = {*KINDS, "restock", "correction", "impossible-command"}
SEEDS = 120
FIRST_SEEDS = range(1, SEEDS + 1, SEEDS_A_TEST)


@cache
def faults_of(seed: int) -> Collection[str]:
    """Simulate a seed, in which no invariant may break; return the faults that were injected."""
    result = simulate(SimulationPlan(seed=seed))
    if result.violations:
        pytest.fail(str(explain(result)), pytrace=False)
    return result.faults.keys()


@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_no_seed_breaks_an_invariant(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        faults_of(seed)


def test_product_that_is_entered_again_in_the_middle_of_its_replay_gets_no_version_twice() -> None:
    """This seed loses the database of inventory twice, after its clock was ahead."""
    faults_of(3040)


def test_sixty_concurrent_orders_break_no_invariant() -> None:
    result = simulate(SimulationPlan(seed=1, orders=60))

    assert not result.violations
    assert sum(result.statuses.values()) == 60


def test_every_kind_of_fault_is_injected_in_some_run() -> None:
    struck: set[str] = set()
    for seed in range(1, SEEDS + 1):
        struck.update(faults_of(seed))
        if struck >= EVERY_KIND:  # Services add kinds of their own.
            return
    pytest.fail(f"never struck: {sorted(EVERY_KIND - struck)}")


def test_without_faults_every_order_ends_within_5_seconds() -> None:
    orders = tuple(f"order#{n}" for n in range(1, 6))

    # In this run no client asks for anything after the healing, which would be waited for.
    result = simulate(SimulationPlan(seed=18, only=orders))

    assert not result.violations
    assert result.faults == {}
    assert sum(result.statuses.values()) == 5
    assert result.settled_after_seconds is not None
    assert result.settled_after_seconds < 5

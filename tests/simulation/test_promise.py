"""The promise holds whatever strikes: a thousand seeds of everything that can go wrong."""

import pytest

from todoku.lab.simulation import Plan, explain, simulate
from todoku.lab.simulation.faults import KINDS

SEEDS_A_TEST = 50
FIRST_SEEDS = range(1, 1001, SEEDS_A_TEST)


@pytest.mark.parametrize("first", FIRST_SEEDS)
def test_no_seed_breaks_the_promise(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        result = simulate(Plan(seed=seed))
        if result.failures:
            pytest.fail(str(explain(result)), pytrace=False)


def test_many_orders_at_once_keep_the_promise() -> None:
    result = simulate(Plan(seed=1, orders=60))

    assert not result.failures
    assert sum(result.statuses.values()) == 60


def test_every_kind_of_fault_strikes_in_some_run() -> None:
    struck: set[str] = set()
    for seed in range(1, 301):
        struck.update(simulate(Plan(seed=seed, settle_seconds=600)).faults)
        if struck == set(KINDS):
            return
    pytest.fail(f"never struck: {sorted(set(KINDS) - struck)}")


def test_without_faults_every_order_ends_within_seconds() -> None:
    orders = tuple(f"order#{n}" for n in range(1, 6))

    result = simulate(Plan(seed=1, only=orders))

    assert not result.failures
    assert result.faults == {}
    assert sum(result.statuses.values()) == 5
    assert result.settled_after_seconds is not None
    assert result.settled_after_seconds < 5

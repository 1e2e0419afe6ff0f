"""Tests that the simulation finds every planted bug: a check that finds none proves nothing."""

import pytest

from simulation.mutants import MUTANTS, Mutant, hunt
from todoku.lab.simulation import SimulationPlan, shrink, simulate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_simulation_finds_mutant(mutant: Mutant) -> None:
    assert hunt(mutant) is not None, f"nothing finds it: {mutant.meaning}"


def test_mutant_is_removed_afterwards() -> None:
    before = simulate(SimulationPlan(seed=1)).digest
    for mutant in MUTANTS:
        with mutant.plant():
            pass

    assert simulate(SimulationPlan(seed=1)).digest == before


def test_failed_run_shrinks_to_the_occurrences_needed() -> None:
    """A reservation that is never released needs one order whose shipment fails, and no fault."""
    mutant = next(each for each in MUTANTS if each.name == "no-compensation")
    with mutant.plant():
        caught = hunt(mutant)
        assert caught is not None
        failed = simulate(SimulationPlan(seed=caught.seed))
        shortest = shrink(failed, seconds_max=60)

    assert shortest.violations[0].invariant == failed.violations[0].invariant
    assert [each.kind for each in shortest.occurred] == ["order"]

"""Tests that the simulation finds every planted bug: a check that finds none proves nothing."""

import pytest

from simulation.mutants import KNOWN_SEEDS, MUTANTS, Mutant, hunt
from todoku.lab.simulation import SimulationPlan, SimulationResult, shrink, simulate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_simulation_finds_mutant(mutant: Mutant) -> None:
    assert hunt(mutant) is not None, f"nothing finds it: {mutant.meaning}"


def test_known_seeds_are_of_mutants() -> None:
    assert KNOWN_SEEDS.keys() <= {mutant.name for mutant in MUTANTS}


def test_failed_run_shrinks_to_the_occurrences_needed() -> None:
    """A reservation that is never released needs one order whose shipment fails, and no fault."""
    mutant = next(each for each in MUTANTS if each.name == "no-compensation")
    found = hunt(mutant)
    assert found is not None

    def rerun(plan: SimulationPlan) -> SimulationResult:
        return simulate(plan, mutant.plant())

    failed = rerun(SimulationPlan(seed=found.seed))
    shortest = shrink(failed, seconds_max=60, rerun=rerun)

    assert shortest.violations[0].invariant == failed.violations[0].invariant
    assert [each.kind for each in shortest.occurred] == ["order"]

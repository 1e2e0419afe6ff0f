"""Every planted bug is found: a check that finds no bug would prove nothing."""

import pytest

from simulation.mutants import MUTANTS, Mutant, hunt
from todoku.lab.simulation import Plan, shrink, simulate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_simulation_finds_it(mutant: Mutant) -> None:
    assert hunt(mutant) is not None, f"nothing catches it: {mutant.meaning}"


def test_what_is_planted_is_gone_afterwards() -> None:
    before = simulate(Plan(seed=1)).digest
    for mutant in MUTANTS:
        with mutant.plant():
            pass

    assert simulate(Plan(seed=1)).digest == before


def test_a_failed_run_shrinks_to_what_it_takes() -> None:
    """A reservation that is never released needs one order whose shipment fails, and no fault."""
    mutant = next(each for each in MUTANTS if each.name == "no-compensation")
    with mutant.plant():
        caught = hunt(mutant)
        assert caught is not None
        failed = simulate(Plan(seed=caught.seed))
        shortest = shrink(failed, seconds_max=60)

    assert shortest.failures[0].invariant == failed.failures[0].invariant
    assert [each.kind for each in shortest.occurred] == ["order"]

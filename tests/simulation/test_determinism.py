"""A seed is a run: what it shows once it shows always, and on every machine."""

import os
import subprocess
import sys

import msgspec
import pytest

from todoku.lab.simulation import Plan, replay, simulate

PRINT_DIGESTS = """
from todoku.lab.simulation import Plan, simulate
for seed in range(1, 11):
    print(simulate(Plan(seed=seed)).digest)
"""


def digests(hash_seed: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return answer.stdout.split()


def test_the_same_seeds_give_the_same_runs_to_the_byte_in_two_processes() -> None:
    first = digests("1")

    assert len(set(first)) == 10
    assert first == digests("2")


def test_a_run_does_not_depend_on_those_before_it() -> None:
    alone = simulate(Plan(seed=4)).digest
    for seed in (5, 6, 7):
        simulate(Plan(seed=seed))

    assert simulate(Plan(seed=4)).digest == alone


@pytest.mark.parametrize("seed", range(1, 11))
def test_naming_all_that_happened_repeats_the_run(seed: int) -> None:
    result = simulate(Plan(seed=seed))
    everything = tuple(each.label for each in result.occurred)

    again = simulate(msgspec.structs.replace(result.plan, only=everything))

    assert again.digest == result.digest


def test_the_trace_of_an_order_tells_its_story() -> None:
    orders = tuple(f"order#{n}" for n in range(1, 6))
    _, trace = replay(Plan(seed=1, only=orders))
    placed = [record.text.split()[0] for record in trace.records if record.what == "order"]

    for order_id in placed:
        story = "\n".join(trace.lines([order_id]))
        assert "orders     publish    OrderCreatedEvent" in story
        assert all(other[-8:] not in story for other in placed if other != order_id)

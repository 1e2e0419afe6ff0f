"""Tests that the same seed gives the same run, on every machine."""

import os
import subprocess
import sys

import msgspec
import pytest

from todoku.lab.simulation import SimulationPlan, replay, simulate

PRINT_DIGESTS = """
from todoku.lab.simulation import SimulationPlan, simulate
for seed in range(1, 4):
    print(simulate(SimulationPlan(seed=seed)).digest)
"""


def digests(hash_seed: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", PRINT_DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return answer.stdout.split()


def test_same_seed_gives_same_digest_in_two_processes() -> None:
    first = digests("1")

    assert len(set(first)) == 3
    assert first == digests("2")


def test_run_does_not_depend_on_earlier_runs() -> None:
    alone = simulate(SimulationPlan(seed=4)).digest
    for seed in (5, 6, 7):
        simulate(SimulationPlan(seed=seed))

    assert simulate(SimulationPlan(seed=4)).digest == alone


def test_run_with_replicas_does_not_depend_on_earlier_runs() -> None:
    alone = simulate(SimulationPlan(seed=4, replicas=3)).digest
    simulate(SimulationPlan(seed=5, replicas=2))

    assert simulate(SimulationPlan(seed=4, replicas=3)).digest == alone


@pytest.mark.parametrize("seed", range(1, 6))
def test_naming_every_occurrence_repeats_the_run(seed: int) -> None:
    result = simulate(SimulationPlan(seed=seed))
    everything = tuple(each.label for each in result.occurred)

    again = simulate(msgspec.structs.replace(result.plan, only=everything))

    assert again.digest == result.digest


def test_trace_of_an_order_shows_its_events_only() -> None:
    orders = tuple(f"order#{n}" for n in range(1, 9))
    _, trace = replay(SimulationPlan(seed=1, only=orders, replicas=1))
    asked = [record.text.split()[0] for record in trace.records if record.what == "order"]
    stories = {order_id: "\n".join(trace.lines([order_id])) for order_id in asked}

    # A client that repeats a request with its key has one order for both.
    placed = [order_id for order_id, story in stories.items() if "PlaceOrder" in story]
    assert len(placed) >= 3
    for order_id in placed:
        assert "orders       publish    OrderCreatedEvent" in stories[order_id]
        assert all(other[-8:] not in stories[order_id] for other in placed if other != order_id)

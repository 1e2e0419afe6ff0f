"""Test processes that are killed or frozen under load."""

from random import Random

import pytest

from faults.conftest import Prove
from todoku.lab.chaos import OrderLoad
from todoku.lab.chaos.faults import kill_broker, kill_service, kill_up, stop_and_start
from todoku.lab.processes import PROGRAMS
from todoku.lab.stack import Stack

pytestmark = pytest.mark.faults

KILLS = 10
ENDINGS = (kill_service, kill_service, kill_service, kill_broker, kill_broker, kill_up)


@pytest.mark.parametrize("seed", range(3))
def test_random_kills(seed: int, stack: Stack, prove: Prove) -> None:
    """`kill -9` of services, broker and `up`, one after the other in any order, loses nothing."""
    dice = Random(seed)
    with OrderLoad(stack, seed=seed) as load:
        for _ in range(KILLS):
            load.until_accepted(dice.randrange(150))
            dice.choice(ENDINGS)(stack, dice)
        load.until_accepted(100)
    prove(stack, load, injected=KILLS)


def test_everything_is_killed_while_it_still_starts(stack: Stack, prove: Prove) -> None:
    """`up` and all of its programs killed again before they have finished to recover: no harm."""
    with OrderLoad(stack) as load:
        load.until_accepted(300)
        for pause_seconds in (0.2, 0.5, 0.8, 1.1, 1.4, 1.7):
            stack.kill_up()
            stack.launch()
            load.go_on_for(pause_seconds)
        stack.until_ready()
        load.until_accepted(100)
    prove(stack, load, injected=6)


def test_ctrl_c_again_and_again(stack: Stack, prove: Prove) -> None:
    """A clean stop in the middle of the load loses nothing, however often."""
    with OrderLoad(stack) as load:
        for _ in range(4):
            load.until_accepted(100)
            stop_and_start(stack, Random())
        load.until_accepted(100)
    prove(stack, load, injected=4)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_freeze_of(name: str, stack: Stack, prove: Prove) -> None:
    """A process stopped by SIGSTOP for a while continues normally."""
    with OrderLoad(stack) as load:
        for seconds in (1, 7):
            load.until_accepted(200)
            stack.freeze(name)
            load.go_on_for(seconds)
            stack.thaw(name)
        load.until_accepted(200)
    prove(stack, load, injected=2)


def test_a_broker_that_is_frozen_for_good(stack: Stack, prove: Prove) -> None:
    """`up` detects that it stores nothing, says so, and restarts it; orders are accepted meanwhile."""
    with OrderLoad(stack) as load:
        load.until_accepted(200)
        stack.freeze("broker")
        stack.output.until("broker runs but does not work: ")
        taken = len(load.accepted)
        stack.until_ready()
        load.until_accepted(200)
    said = next(line for line in stack.output.lines if "does not work" in line)
    prove(stack, load, injected=1, note=f"{taken - 200} orders taken meanwhile; said: {said}")

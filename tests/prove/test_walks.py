"""Property tests: whatever happens, and to whatever moment databases are restored, the invariants hold."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prove.cases import Cases
from prove.shop import shop
from prove.walk import Walk
from todoku.contracts import CancellationConfirmedEvent
from todoku.engine import Service

STEPS_TO_REST_MAX = 200

ALIKE = Cases(shop([1, 1], stock=1, restocks=1))
TWO_SIZES = Cases(shop([1, 2], stock=2, cancellations=1, lines=1, restocks=1))

Action = int | tuple[str, int]
"""Takes one of the steps that are possible, by its number; or restores a service to this step."""

steps = st.integers(0, 50)
restores = st.tuples(st.sampled_from(("orders", "inventory", "shipping")), steps)
actions = st.lists(st.one_of(steps, steps, steps, restores), max_size=40)
orders_of_arrival = st.lists(steps, min_size=1, max_size=10)


@settings(max_examples=60)
@given(actions, orders_of_arrival)
def test_two_like_orders_end_well_whatever_happens(
    actions: Sequence[Action], arrivals: Sequence[int]
) -> None:
    run(ALIKE, actions, arrivals)


@settings(max_examples=60)
@given(actions, orders_of_arrival)
def test_two_orders_of_different_sizes_end_well_whatever_happens(
    actions: Sequence[Action], arrivals: Sequence[int]
) -> None:
    run(TWO_SIZES, actions, arrivals)


def test_confirmation_that_is_not_replayed_is_found() -> None:
    """A shipping database from before a confirmation books a cancelled order."""

    def forget(service: Service) -> Service:
        handlers = dict(service.replay_handlers)
        handlers.pop(CancellationConfirmedEvent, None)
        return replace(service, replay_handlers=handlers)

    with pytest.raises(AssertionError, match="I4: the carrier was called for an order"):
        run_at_random(Cases(shop([1], plant=forget)), times=500)


def run_at_random(cases: Cases, times: int) -> None:
    """Take that many ways through a scenario, in which shipping is restored at times."""
    random = Random(1)
    for _ in range(times):
        drawn = [random.randrange(60) for _ in range(30)]
        run(cases, [("shipping", n) if n > 50 else n for n in drawn], [random.randrange(50)])


def run(cases: Cases, actions: Sequence[Action], arrivals: Sequence[int]) -> Walk:
    """Do this; then let everything arrive in this order, until nothing happens any more."""
    walk = Walk(cases)
    for action in actions:
        if isinstance(action, tuple):
            name, step = action
            walk.restore(name, step % (walk.steps + 1))
        elif options := walk.options():
            walk.go(*options[action % len(options)])
    for n in range(STEPS_TO_REST_MAX):
        if walk.at_rest:
            return walk
        options = walk.options(progress=True)
        walk.go(*options[arrivals[n % len(arrivals)] % len(options)])
    raise AssertionError("\n".join(("never at rest", *walk.told)))

"""A random sequence of faults under load, and what became of the promise."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

import msgspec
import nats.errors

from todoku.lab.chaos.faults import FAULTS
from todoku.lab.chaos.load import Load, prepare_products
from todoku.lab.chaos.stack import Stack
from todoku.lab.chaos.verdict import Verdict, judge, order_ids

PAUSE_SECONDS_MAX = 2.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to happen: faults for so many seconds, in a sequence that the seed decides, under so
    many orders a second; then all must settle within `settle_seconds`."""

    seed: int
    seconds: float
    orders_per_second: float
    settle_seconds: float


class Chaos(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What happened: how often each fault struck, and what customers were told.

    `missed` counts those that found nothing to break, such as a stream that had just been deleted.
    """

    seed: int
    faults: dict[str, int]
    missed: dict[str, int]
    refused: int
    unknown: int
    verdict: Verdict


def wreak(stack: Stack, plan: Plan, *, tell: Callable[[str], None]) -> Chaos:
    """Break a stack that runs, let it heal, and judge it. `tell` hears what is about to happen.

    Raises `TimeoutError` if it does not heal.
    """
    dice = Random(plan.seed)
    faults = _dealt(dice)
    struck: Counter[str] = Counter(dict.fromkeys(FAULTS, 0))
    missed: Counter[str] = Counter()
    prepare_products(stack)
    before = order_ids(stack.settings)
    ends = time.monotonic() + plan.seconds
    with Load(stack, orders_per_second=plan.orders_per_second, seed=plan.seed) as load:
        while time.monotonic() < ends:
            load.go_on_for(dice.uniform(0.0, PAUSE_SECONDS_MAX))
            name = next(faults)
            tell(f"{len(load.accepted):,} orders accepted; next: {name}")
            (struck if _strike(stack, name, dice) else missed)[name] += 1
        tell("no more faults")
        stack.until_ready()
    tell(f"{len(load.accepted):,} orders accepted; waiting until all has settled")
    return Chaos(
        seed=plan.seed,
        faults=dict(struck),
        missed=dict(missed),
        refused=load.refused,
        unknown=load.unknown,
        verdict=judge(stack.settings, load, within_seconds=plan.settle_seconds, before=before),
    )


def _dealt(dice: Random) -> Iterator[str]:
    """Faults without end: all of them in a random sequence, then all in another."""
    while True:
        yield from dice.sample(list(FAULTS), len(FAULTS))


def _strike(stack: Stack, name: str, dice: Random) -> bool:
    """Let a fault happen; whether there was something to break."""
    try:
        FAULTS[name](stack, dice)
    except (LookupError, ConnectionError, nats.errors.Error):
        return False
    return True

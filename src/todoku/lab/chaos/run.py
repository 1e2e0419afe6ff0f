"""Runs a random sequence of faults under load, and checks the invariants."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random

import msgspec
import nats.errors

from todoku.lab.chaos.copier import Copier
from todoku.lab.chaos.faults import FAULTS, Fault
from todoku.lab.chaos.load import SHORT, OrderLoad, prepare_products
from todoku.lab.chaos.staff import Staff
from todoku.lab.chaos.verdict import Verdict, judge
from todoku.lab.databases import order_ids
from todoku.lab.stack import Stack

PAUSE_SECONDS_MAX = 2.0


class ChaosPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do: inject faults for that many seconds, in a sequence that the seed decides, under a
    load of orders; then the system must be quiescent within `settle_seconds`.

    Of these shares of the orders, all or a piece is cancelled at a random moment, or they are held for a
    while. With `restocks`, half of the products run short again and again; a copier of the feed is killed
    `copier_kills` times.
    """

    seed: int
    seconds: float
    orders_per_second: float
    settle_seconds: float
    cancelled_share: float = 0.0
    line_share: float = 0.0
    held_share: float = 0.0
    restocks: bool = False
    copier_kills: int = 0
    faults: tuple[str, ...] = tuple(FAULTS)


class ChaosReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What happened: how often each fault was injected, and how requests were answered. `repeated` are
    orders that were answered only after they were sent again, `unknown` those that never were.

    `missed` counts faults that found nothing to break, such as a stream that had just been deleted. `copy`
    has what distinguishes the copy from what orders has recorded.
    """

    seed: int
    faults: dict[str, int]
    missed: dict[str, int]
    refused: int
    unknown: int
    repeated: int
    cancelled: int
    too_late: int
    held: int
    too_late_to_hold: int
    restocked: int
    copier_killed: int
    copy: tuple[str, ...]
    verdict: Verdict

    @property
    def broken(self) -> list[str]:
        """The violations, in a line each that begins with the name of the invariant."""
        return [*self.verdict.broken, *(f"F1 {each}" for each in self.copy)]


def run_chaos(stack: Stack, plan: ChaosPlan, *, report: Callable[[str], None]) -> ChaosReport:
    """Break a running stack, let it heal, and judge it. `report` is told each step.

    Raises `TimeoutError` if it does not heal.
    """
    dice = Random(plan.seed)
    faults = _shuffled(dice, plan.faults)
    injected: Counter[str] = Counter(dict.fromkeys(plan.faults, 0))
    missed: Counter[str] = Counter()
    prepare_products(stack)
    before = order_ids(stack.settings)
    copier = Copier(stack, kills=plan.copier_kills, seed=plan.seed)
    staff = Staff(stack, SHORT if plan.restocks else ())
    ends = time.monotonic() + plan.seconds
    with copier.at_work(), staff.at_work(), _load(stack, plan) as load:
        while time.monotonic() < ends:
            load.go_on_for(dice.uniform(0.0, PAUSE_SECONDS_MAX))
            name = next(faults)
            report(f"{len(load.accepted):,} orders accepted; next: {name}")
            (injected if inject(stack, FAULTS[name], dice) else missed)[name] += 1
        report("no more faults")
        stack.until_ready()
    report(f"{len(load.accepted):,} orders accepted; waiting until the system is quiescent")
    verdict = judge(stack.settings, load, within_seconds=plan.settle_seconds, before=before)
    report("comparing the copy with what orders has recorded")
    return ChaosReport(
        seed=plan.seed,
        faults=dict(injected),
        missed=dict(missed),
        refused=load.refused,
        unknown=load.unknown,
        repeated=load.repeated,
        cancelled=len(load.wishes.accepted),
        too_late=load.wishes.too_late,
        held=len(load.holders.accepted),
        too_late_to_hold=load.holders.too_late,
        restocked=staff.restocked,
        copier_killed=copier.killed,
        copy=copier.differences() if plan.copier_kills else (),
        verdict=verdict,
    )


def _load(stack: Stack, plan: ChaosPlan) -> OrderLoad:
    return OrderLoad(
        stack,
        orders_per_second=plan.orders_per_second,
        seed=plan.seed,
        cancelled_share=plan.cancelled_share,
        line_share=plan.line_share,
        held_share=plan.held_share,
        short=plan.restocks,
    )


def _shuffled(dice: Random, faults: Sequence[str]) -> Iterator[str]:
    """Yield faults without end: each of them once in random order, then again in another."""
    while True:
        yield from dice.sample(faults, len(faults))


def inject(stack: Stack, fault: Fault, dice: Random) -> bool:
    """Inject a fault; return whether there was something to break."""
    try:
        fault(stack, dice)
    except (LookupError, ConnectionError, nats.errors.Error):
        return False
    return True

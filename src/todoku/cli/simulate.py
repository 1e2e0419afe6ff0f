"""`todoku simulate`: the whole system in one process, on a seeded and hostile network."""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.options import Json
from todoku.cli.output import write_object

if TYPE_CHECKING:
    from todoku.simulation import Plan, Result

SHRUNK_MAX = 3
"""How many failed runs are made short and shown in full; the others are named."""

SEEDS_A_TIME = 8
"""How many runs a process is given at once."""


class Broken(msgspec.Struct):
    """A run that broke the promise: how, the shortest schedule found for it, and what happened."""

    seed: int
    invariant: str
    problem: str
    orders: tuple[str, ...]
    schedule: list[str]
    happened: list[str]
    repeat: str


class Campaign(msgspec.Struct):
    """What many runs came to. `settled_seconds_max` is how long the slowest needed after healing."""

    runs: int = 0
    events: int = 0
    orders: Counter[str] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    settled_seconds_max: float = 0.0
    seconds: float = 0.0
    digest: str | None = None
    broken_seeds: list[int] = []
    broken: list[Broken] = []

    def add(self, result: "Result") -> None:
        """Count a run."""
        self.runs += 1
        self.events += result.events
        self.orders.update(result.statuses)
        self.faults.update(result.faults)
        self.settled_seconds_max = max(
            self.settled_seconds_max, result.settled_after_seconds or 0.0
        )
        self.digest = result.digest if self.runs == 1 else None
        if result.failures:
            self.broken_seeds.append(result.plan.seed)


def simulate(
    *,
    seed: int = 1,
    seeds: int = 1,
    orders: int = 5,
    only: str = "",
    jobs: int = 0,
    trace: bool = False,
    shrink_seconds: float = 20.0,
    json: Json = False,
) -> ExitCode:
    """Run the whole system on a seeded, hostile network, and hold the promise against it.

    The services, their engine and their stores are the real ones; broker, disks, clocks, carrier and
    network are simulated, and fail in every way that the seed leads to. The same seed gives the same
    run, to the byte. Afterwards everything heals, and every order must end within a bound. A run that
    breaks the promise is made as short as possible and shown. Exit code 1 if there is one.

    For example:

        todoku simulate --seeds 100
        todoku simulate --seed 42 --trace

    Parameters
    ----------
    seed
        The first seed.
    seeds
        How many seeds to run.
    orders
        How many orders are placed in each run.
    only
        The orders and faults that may happen, as a failed run names them: order#1,kill#2
    jobs
        How many runs go on at the same time. Without it, as many as there are processors.
    trace
        Print everything that happened. For one seed.
    shrink_seconds
        How long to look for a shorter schedule of each failed run.
    json
        Print one JSON object.
    """
    if min(seeds, orders) < 1 or jobs < 0 or (trace and (seeds > 1 or json)):
        raise CommandFailed(
            "--seeds and --orders begin at 1, --jobs at 0; --trace is for one seed, without --json.",
            exit_code=ExitCode.USAGE,
        )
    from todoku.simulation import Plan, replay

    allowed = tuple(only.split(",")) if only else None
    plans = [Plan(seed=seed + n, orders=orders, only=allowed) for n in range(seeds)]
    if trace:
        for line in replay(plans[0])[1].lines():
            print(line)
    campaign = _run(plans, jobs or os.cpu_count() or 1, shrink_seconds)
    if json:
        write_object(msgspec.json.encode(campaign))
    else:
        print(_as_text(campaign))
    return ExitCode.FAILED if campaign.broken_seeds else ExitCode.OK


def _run(plans: Sequence["Plan"], jobs: int, shrink_seconds: float) -> Campaign:
    campaign = Campaign()
    begun = time.monotonic()
    for result in _with_progress(_results(plans, jobs), len(plans)):
        campaign.add(result)
        if result.failures and len(campaign.broken) < SHRUNK_MAX:
            campaign.broken.append(_explain(result, shrink_seconds))
    campaign.seconds = round(time.monotonic() - begun, 2)
    return campaign


def _results(plans: Sequence["Plan"], jobs: int) -> Iterator["Result"]:
    from todoku.simulation import simulate

    if min(jobs, len(plans)) == 1:
        yield from map(simulate, plans)
        return
    with ProcessPoolExecutor(jobs, initializer=_leave_ctrl_c_to_the_parent) as pool:
        try:
            yield from pool.map(simulate, plans, chunksize=SEEDS_A_TIME)
        finally:
            pool.shutdown(cancel_futures=True)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _with_progress(results: Iterable["Result"], total: int) -> Iterable["Result"]:
    """The same, with a bar at a terminal."""
    if total == 1 or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, "simulating", total=total, console=Console(stderr=True), transient=True)


def _explain(result: "Result", shrink_seconds: float) -> Broken:
    """The shortest run that still fails in the same way, and what happened in it."""
    from todoku.simulation import replay, shrink

    shortest, trace = replay(shrink(result, seconds_max=shrink_seconds).plan)
    plan, failure = shortest.plan, shortest.failures[0]
    labels = ",".join(each.label for each in shortest.occurred)
    return Broken(
        seed=plan.seed,
        invariant=failure.invariant,
        problem=failure.problem,
        orders=failure.orders,
        schedule=[f"{each.at:9.3f}  {each.label}" for each in shortest.occurred],
        happened=list(trace.lines(failure.orders or None)),
        repeat=f"todoku simulate --trace --seed {plan.seed} --orders {plan.orders} --only {labels}",
    )


def _as_text(campaign: Campaign) -> str:
    lines: list[str] = []
    for broken in campaign.broken:
        lines += [
            f"seed {broken.seed} breaks {broken.invariant}: {broken.problem}",
            "",
            f"  The shortest schedule that was found ({len(broken.schedule)} orders and faults):",
            *(f"    {line}" for line in broken.schedule),
            "",
            "  What led there:",
            *(f"    {line}" for line in broken.happened),
            "",
            f"  Again: {broken.repeat}",
            "",
        ]
    lines += [
        f"{campaign.runs:>9} runs in {campaign.seconds:.1f} s, {campaign.events} events",
        *_counted(campaign.orders, "orders"),
        *_counted(campaign.faults, "times"),
        f"{campaign.settled_seconds_max:>9.0f} simulated seconds until all was settled, at most",
    ]
    if campaign.digest:
        lines.append(f"digest {campaign.digest}")
    if campaign.broken_seeds:
        named = ", ".join(map(str, campaign.broken_seeds))
        lines.append(f"{len(campaign.broken_seeds)} runs broke the promise: seeds {named}")
    else:
        lines.append("clean: nothing broke the promise")
    return "\n".join(lines)


def _counted(counter: Counter[str], what: str) -> list[str]:
    return [f"{count:>9} {what} {name}" for name, count in sorted(counter.items())]

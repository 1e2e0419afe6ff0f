"""`todoku simulate`: run the whole system in one process, with injected faults."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection

import msgspec

from todoku.broker.partitions import NUMBERS
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import settings_from
from todoku.cli.options import Flag, Json, Seconds
from todoku.cli.output import write_object
from todoku.lab.simulation import Explanation, SimulationPlan, SimulationResult, explain, replay
from todoku.lab.simulation import simulate as run_plan

EXPLAINED_MAX = 3
"""How many failed runs are shrunk and shown in full; of the others only the seeds are shown."""

SEEDS_A_TIME = 8
"""How many runs a worker process takes at once."""

NAMED_MAX = 5
"""How many orders and faults that never happened are named."""


class Campaign(msgspec.Struct):
    """The totals of many runs.

    `settled_seconds_max` is the most simulated time from healing until the system was quiescent.
    `digest` is the one of a single run, None for several. `never_happened` are the orders and faults
    that were to be the only ones, and were in no run.
    """

    runs: int = 0
    events: int = 0
    orders: Counter[str] = msgspec.field(default_factory=Counter)
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    settled_seconds_max: float = 0.0
    seconds: float = 0.0
    digest: str | None = None
    broken_seeds: list[int] = []
    explanations: list[Explanation] = []
    never_happened: list[str] = []

    def add(self, result: SimulationResult) -> None:
        """Add a run to the totals."""
        self.runs += 1
        self.events += result.events
        self.orders.update(result.statuses)
        self.faults.update(result.faults)
        self.settled_seconds_max = max(
            self.settled_seconds_max, result.settled_after_seconds or 0.0
        )
        self.digest = result.digest if self.runs == 1 else None
        if result.violations:
            self.broken_seeds.append(result.plan.seed)


def simulate(
    *,
    seed: int = 1,
    seeds: int = 1,
    orders: int = 5,
    replicas: int = 0,
    partitions: int = 1,
    only: str = "",
    jobs: int = 0,
    trace: Flag = False,
    shrink_seconds: Seconds = 20.0,
    json: Json = False,
) -> ExitCode:
    """Simulate the whole system with injected faults, and check its invariants.

    Services, engine and stores are the production code; broker, disks, clocks,
    carrier and network are simulated, and fail as the seed decides. A service is
    one process with SQLite, or in some runs several processes that share a database
    with PostgreSQL's row locks. The same seed gives the same run, to the byte. Then
    the faults end, and every order must end in time. A run that breaks an invariant
    is shrunk to the orders and faults that are needed, and shown. Exit code 1 if
    there is one.

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
    replicas
        How many processes of each service share a database; 1 for SQLite, 0 to let the seed decide.
    partitions
        Into how many parts processes that share a database divide what they read; 0 for another number at
        each start of a process.
    only
        Only these orders and faults may happen, named as in a failed run: order#1,kill#2
    jobs
        How many runs to execute at the same time; 0 for one a processor.
    trace
        Print every record of the run. For one seed.
    shrink_seconds
        How long to shrink each failed run.
    json
        Print one JSON object.
    """
    if partitions not in (0, *NUMBERS):
        numbers = ", ".join(map(str, NUMBERS))
        raise CommandFailed(f"--partitions is one of {numbers}, or 0.", exit_code=ExitCode.USAGE)
    if min(seeds, orders) < 1 or min(jobs, replicas) < 0 or (trace and (seeds > 1 or json)):
        raise CommandFailed(
            "--seeds and --orders start at 1, --jobs and --replicas at 0; --trace takes one seed and"
            " no --json.",
            exit_code=ExitCode.USAGE,
        )
    allowed = tuple(only.split(",")) if only else None
    system = settings_from(None).settings.system
    plans = [
        SimulationPlan(
            seed=seed + n,
            orders=orders,
            only=allowed,
            system=system,
            replicas=replicas,
            partitions=partitions,
        )
        for n in range(seeds)
    ]
    if trace:
        for line in replay(plans[0])[1].lines():
            print(line)
    campaign = _run(plans, jobs or os.cpu_count() or 1, shrink_seconds)
    if json:
        write_object(msgspec.json.encode(campaign))
    else:
        print(_as_text(campaign))
    return ExitCode.FAILED if campaign.broken_seeds else ExitCode.OK


def _run(plans: Sequence[SimulationPlan], jobs: int, shrink_seconds: float) -> Campaign:
    campaign = Campaign()
    happened: set[str] = set()
    begun = time.monotonic()
    for result in _with_progress(_results(plans, jobs), len(plans)):
        campaign.add(result)
        if result.violations and len(campaign.explanations) < EXPLAINED_MAX:
            campaign.explanations.append(explain(result, seconds_max=shrink_seconds))
        happened.update(each.label for each in result.occurred)
    campaign.never_happened = sorted(set(plans[0].only or ()) - happened)
    campaign.seconds = round(time.monotonic() - begun, 2)
    return campaign


def _results(plans: Sequence[SimulationPlan], jobs: int) -> Iterator[SimulationResult]:
    if min(jobs, len(plans)) == 1:
        yield from map(run_plan, plans)
        return
    with workers(jobs) as pool:
        yield from pool.map(run_plan, plans, chunksize=SEEDS_A_TIME)


@contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """Yield worker processes that end at once, whatever they do, if this context is left by an exception
    such as Ctrl-C, or if this process is killed."""
    lifeline, held = multiprocessing.Pipe(duplex=False)
    with ProcessPoolExecutor(
        jobs, initializer=_end_with_the_parent, initargs=(lifeline, held)
    ) as pool:
        try:
            yield pool
        except BaseException:
            held.close()
            raise


def _end_with_the_parent(lifeline: Connection, held: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent.
    held.close()
    threading.Thread(target=_exit_after, args=(lifeline,), daemon=True).start()


def _exit_after(lifeline: Connection) -> None:
    lifeline.poll(None)  # Nothing is ever sent: it is readable once no process holds the other end.
    os._exit(1)


def _with_progress(results: Iterable[SimulationResult], total: int) -> Iterable[SimulationResult]:
    """Show a progress bar if stderr is a terminal."""
    if total == 1 or not sys.stderr.isatty():
        return results
    from rich.console import Console
    from rich.progress import track

    return track(results, "simulating", total=total, console=Console(stderr=True), transient=True)


def _as_text(campaign: Campaign) -> str:
    lines = [f"{explanation}\n" for explanation in campaign.explanations]
    lines += [
        f"{campaign.runs:>9} runs in {campaign.seconds:.1f} s, {campaign.events} events",
        *_counted(campaign.orders, "orders"),
        *_counted(campaign.faults, "times"),
        f"{campaign.settled_seconds_max:>9.0f} simulated seconds until the system was quiescent, at most",
    ]
    if campaign.never_happened:
        lines.append(
            f"{len(campaign.never_happened):>9} of --only never happened: {_named(campaign)}"
        )
    if campaign.digest:
        lines.append(f"digest {campaign.digest}")
    if campaign.broken_seeds:
        broken = len(campaign.broken_seeds)
        named = ", ".join(map(str, campaign.broken_seeds))
        lines.append(
            f"1 run broke an invariant: seed {named}"
            if broken == 1
            else f"{broken} runs broke an invariant: seeds {named}"
        )
    else:
        lines.append("clean: no invariant was broken")
    return "\n".join(lines)


def _named(campaign: Campaign) -> str:
    shown = ", ".join(campaign.never_happened[:NAMED_MAX])
    return shown + ", …" * (len(campaign.never_happened) > NAMED_MAX)


def _counted(counter: Counter[str], what: str) -> list[str]:
    return [f"{count:>9} {what} {name}" for name, count in sorted(counter.items())]

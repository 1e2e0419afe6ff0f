"""`todoku chaos`: break a real system under load, and hold the promise against it."""

import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.options import Json
from todoku.cli.output import KEY, NUMBER, TEXT, cells, console, note, table, write_object
from todoku.local.supervisor import TETHER

if TYPE_CHECKING:
    from todoku.lab.chaos import Chaos, Plan

INVARIANTS = {
    "I1": "every order that was accepted is there",
    "I2": "the stock adds up, and nothing is oversold",
    "I3": "every order has ended, and all is settled",
    "I4": "each effect happened once",
    "I5": "nothing stays reserved for an order that has ended",
    "HTTP": "every request was answered as the documentation says, or not at all",
}

SHOWN_MAX = 20
"""How many broken promises are shown to a person; a program gets them all."""


def chaos(
    *,
    seconds: float = 60.0,
    seed: int | None = None,
    orders_per_second: float = 200.0,
    settle_seconds: float = 120.0,
    data_dir: Annotated[Path | None, Parameter(show_default=False)] = None,
    json: Json = False,
) -> ExitCode:
    """Break a real system under load, and hold the promise against it.

    Starts a system of its own on free ports, places orders, and kills, freezes,
    wipes and locks its parts in a random sequence: everything that needs no
    root. Then it lets the system heal, waits until all has settled, and audits
    it. What the system itself says is in a log. Exit code 1 if a promise was
    broken.

    For example:

        todoku chaos
        todoku chaos --seconds 600 --seed 42 --json

    Parameters
    ----------
    seconds
        How long to break things.
    seed
        Decides the sequence of the faults. Without it, another one each time.
    orders_per_second
        How many orders are placed.
    settle_seconds
        How long the system may take afterwards until all is settled.
    data_dir
        Where the system has its data; its log is beside it. Without it, a temporary
        folder, which is kept if a promise was broken.
    """
    if sys.platform != "linux":
        raise CommandFailed("chaos needs Linux.", exit_code=ExitCode.CANNOT_START)
    if min(seconds, settle_seconds) < 0 or orders_per_second <= 0:
        raise CommandFailed(
            "--orders-per-second must be above 0, and no time below it.", exit_code=ExitCode.USAGE
        )
    from todoku.lab.chaos import Plan

    folder = Path(tempfile.mkdtemp(prefix="todoku-chaos-"))
    data = data_dir.absolute() if data_dir else folder / "data"
    log = data.with_name(f"{data.name}.log")
    note(f"the log of what is broken is {log}")
    plan = Plan(
        seed=secrets.randbelow(2**32) if seed is None else seed,
        seconds=seconds,
        orders_per_second=orders_per_second,
        settle_seconds=settle_seconds,
    )
    outcome = _run(plan, data, log)
    if outcome.verdict.kept:
        shutil.rmtree(folder)
    if json:
        told = msgspec.to_builtins(outcome) | {"broken": outcome.verdict.broken}
        write_object(msgspec.json.encode(told))
    else:
        _show(outcome)
    return ExitCode.OK if outcome.verdict.kept else ExitCode.FAILED


def _run(plan: "Plan", data: Path, log: Path) -> "Chaos":
    from todoku.lab.chaos import Stack, fresh_settings, wreak

    data.parent.mkdir(parents=True, exist_ok=True)
    with Stack(fresh_settings(data), log, tether=TETHER) as stack:
        try:
            stack.start()
        except TimeoutError as error:
            *_, last = ["it said nothing", *log.read_text().splitlines()]
            raise CommandFailed(
                f"the system did not start: {last}", exit_code=ExitCode.CANNOT_START
            ) from error
        try:
            outcome = wreak(stack, plan, tell=note)
        except TimeoutError as error:
            raise CommandFailed(f"the system did not heal: {error}. Its log is {log}.") from error
        stack.stop()
    return outcome


def _show(outcome: "Chaos") -> None:
    """Fault → count, then invariant → kept or broken, then how."""
    verdict = outcome.verdict
    faults = table(KEY("FAULT"), NUMBER("TIMES"))
    for name, count in outcome.faults.items():
        faults.add_row(*cells(name, f"{count:,}"))
    invariants = table(KEY(""), TEXT("PROMISE"), KEY("BROKEN"))
    for name, meaning in INVARIANTS.items():
        times = sum(line.startswith(f"{name} ") for line in verdict.broken)
        invariants.add_row(*cells(name, meaning, f"{times:,} times" if times else "no"))
    ended = ", ".join(f"{count:,} {status}" for status, count in verdict.orders.items())
    out = console()
    out.print(faults)
    out.print()
    out.print(invariants)
    out.print()
    for line in verdict.broken[:SHOWN_MAX]:
        out.print(line)
    out.print(f"seed {outcome.seed}; {verdict.accepted:,} orders accepted; now {ended}")
    if verdict.settled_seconds is not None:
        out.print(f"settled {verdict.settled_seconds:g} s after the last fault")
    out.print("kept: nothing broke the promise" if verdict.kept else "the promise was broken")

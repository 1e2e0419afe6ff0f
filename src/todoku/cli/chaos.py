"""`todoku chaos`: break a real system under load, and check its invariants."""

import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter, validators

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import settings_from
from todoku.cli.options import Json, Seconds, Share, Texts
from todoku.cli.output import KEY, NUMBER, TEXT, cells, console, note, table, write_object

if TYPE_CHECKING:
    from todoku.lab.chaos import ChaosPlan, ChaosReport


INVARIANTS = {
    "I1": "every accepted order exists",
    "I2": "the stock adds up, and nothing is oversold",
    "I3": "every order has ended, and every event has its receipts",
    "I4": "each effect happened once",
    "I5": "no stock stays reserved for an order that has ended",
    "F1": "the copy of the feed has every event exactly once",
    "HTTP": "every response is one that the documentation lists",
}

RATE_MAX = 100_000
"""More orders a second are a mistake."""

SHOWN_MAX = 20
"""How many violations are printed; JSON has them all."""


def chaos(
    *,
    seconds: Seconds = 60.0,
    seed: int | None = None,
    orders_per_second: float = 200.0,
    settle_seconds: Seconds = 120.0,
    cancelled_share: Share = 0.33,
    line_share: Share = 0.1,
    held_share: Share = 0.2,
    restocks: bool = False,
    copier_kills: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    fault: Texts = (),
    data_dir: Annotated[Path | None, Parameter(show_default=False)] = None,
    json: Json = False,
) -> ExitCode:
    """Break a real system under load, and check its invariants.

    Starts a system of its own on free ports, places orders, and kills, freezes,
    wipes and locks its parts in a random sequence: everything that needs no
    root. Then lets the system heal, waits until every order has ended, and
    audits it. The output of the system goes to a log file. Exit code 1 if an
    invariant is broken.

    For example:

        todoku chaos
        todoku chaos --seconds 600 --seed 42 --json

    Parameters
    ----------
    seconds
        How long to inject faults.
    seed
        The seed of the sequence of faults; random without it.
    orders_per_second
        How many orders to place each second.
    settle_seconds
        How long the system may take afterwards until every order has ended.
    cancelled_share
        Which share of the orders is cancelled, each at a random moment.
    line_share
        Of which share of the orders one piece is cancelled.
    held_share
        Which share of the orders is held for a while, each at a random moment.
    restocks
        Half of the products run short again and again, and are restocked; half of the
        orders wait for stock.
    copier_kills
        How often to kill a copier of the feed. At the end, its copy must be exact.
    fault
        Only these faults, such as 'service killed'; all of them by default.
    data_dir
        The folder for the data; the log is written beside it. Without it, a temporary
        folder, which is kept if an invariant is broken.
    """
    if sys.platform != "linux":
        raise CommandFailed("chaos needs Linux.", exit_code=ExitCode.CANNOT_START)
    if not 0 < orders_per_second <= RATE_MAX:  # NaN fails here too.
        raise CommandFailed(
            f"--orders-per-second must be above 0, and at most {RATE_MAX:,}.",
            exit_code=ExitCode.USAGE,
        )
    from todoku.lab.chaos import ChaosPlan
    from todoku.lab.chaos.faults import FAULTS

    if unknown := sorted(set(fault) - FAULTS.keys()):
        raise CommandFailed(
            f"unknown faults: {', '.join(unknown)}; known are {', '.join(FAULTS)}.",
            exit_code=ExitCode.USAGE,
        )

    folder = Path(tempfile.mkdtemp(prefix="todoku-chaos-"))
    data = data_dir.absolute() if data_dir else folder / "data"
    log = data.with_name(f"{data.name}.log")
    note(f"the log is {log}")
    plan = ChaosPlan(
        seed=secrets.randbelow(2**32) if seed is None else seed,
        seconds=seconds,
        orders_per_second=orders_per_second,
        settle_seconds=settle_seconds,
        cancelled_share=cancelled_share,
        line_share=line_share,
        held_share=held_share,
        restocks=restocks,
        copier_kills=copier_kills,
        faults=fault or tuple(FAULTS),
    )
    try:
        outcome = _run(plan, data, log)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not outcome.broken:
        shutil.rmtree(folder)
    if json:
        told = msgspec.to_builtins(outcome) | {"broken": outcome.broken}
        write_object(msgspec.json.encode(told))
    else:
        _show(outcome)
    return ExitCode.FAILED if outcome.broken else ExitCode.OK


def _run(plan: "ChaosPlan", data: Path, log: Path) -> "ChaosReport":
    from todoku.lab.chaos import run_chaos
    from todoku.lab.stack import Stack, StackFailed, isolated_settings

    data.parent.mkdir(parents=True, exist_ok=True)
    system = settings_from(None).settings.system
    with Stack(isolated_settings(data, system_name=system), log) as stack:
        try:
            stack.start()
        except StackFailed as failed:
            raise CommandFailed(
                f"the system did not start: {failed.last_line}", exit_code=ExitCode.CANNOT_START
            ) from failed
        try:
            report = run_chaos(stack, plan, report=note)
        except (TimeoutError, StackFailed) as error:
            raise CommandFailed(f"the system did not heal: {error}. Its log is {log}.") from error
        stack.stop()
    return report


def _show(outcome: "ChaosReport") -> None:
    """Print how often each fault was injected, and which invariants are broken."""
    verdict = outcome.verdict
    faults = table(KEY("FAULT"), NUMBER("TIMES"))
    for name, count in outcome.faults.items():
        faults.add_row(*cells(name, f"{count:,}"))
    invariants = table(KEY(""), TEXT("INVARIANT"), KEY("BROKEN"))
    for name, meaning in INVARIANTS.items():
        times = sum(line.startswith(f"{name} ") for line in outcome.broken)
        invariants.add_row(*cells(name, meaning, f"{times:,} times" if times else "no"))
    ended = ", ".join(f"{count:,} {status}" for status, count in verdict.orders.items())
    out = console()
    out.print(faults)
    out.print()
    out.print(invariants)
    out.print()
    for line in outcome.broken[:SHOWN_MAX]:
        out.print(line)
    out.print(f"seed {outcome.seed}; {verdict.accepted:,} orders accepted; now {ended}")
    out.print(f"{outcome.cancelled:,} cancellations accepted, {outcome.too_late:,} too late")
    out.print(f"{outcome.held:,} orders held, {outcome.too_late_to_hold:,} too late")
    out.print(
        f"{outcome.restocked:,} restocks; the copier was killed {outcome.copier_killed:,} times"
    )
    out.print(
        f"{outcome.repeated:,} of them were sent again with their keys; of {outcome.unknown:,} more the"
        " outcome is unknown"
    )
    if verdict.settled_seconds is not None:
        out.print(f"quiescent {verdict.settled_seconds:g} s after the last fault")
    out.print("clean: no invariant is broken" if not outcome.broken else "an invariant is broken")

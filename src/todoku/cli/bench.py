"""`todoku bench`: put a load on a system, and say what it did."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.figures import print_report
from todoku.cli.flags import SYSTEM_HERE, Flags, settings_from
from todoku.cli.options import Json, Seconds
from todoku.cli.output import write_object
from todoku.cli.reads import require_orders, time_reads
from todoku.cli.signals import interrupt_on_stop_signals
from todoku.local.supervisor import TETHER
from todoku.settings import Settings, SettingsInvalid, to_text
from todoku.system import SYSTEM, load_settings

if TYPE_CHECKING:
    from todoku.lab.bench.load import Progress as Told
    from todoku.lab.bench.run import Measured, Wanted
    from todoku.lab.bench.stack import Stack

DEFAULTS = {"carrier_delay_seconds": "0", "carrier_success_rate": "1", "log_level": "warning"}
"""What is measured is the system, and not how long a simulated carrier takes."""

SECONDS = 10.0

RATE_MAX = 100_000
LARGE = 100_000_000
"""No other figure that is wanted may be above this."""

ALONE = (
    (
        "--running",
        ("--fsyncs", "--stages", "--skip-verify"),
        "loads a system that was started by somebody else and is not looked into",
    ),
    (
        "--reads",
        (
            "--rate",
            "--seconds",
            "--orders",
            "--hot",
            "--fsyncs",
            "--stages",
            "--skip-verify",
            "--plot",
        ),
        "places no orders",
    ),
)
"""Options, those that would have no effect with each, and why."""

Switch = Annotated[bool, Parameter(negative="")]


def bench(
    *,
    running: Switch = False,
    connections: int = 64,
    rate: float | None = None,
    seconds: float | None = None,
    orders: int | None = None,
    items: int = 2,
    products: int = 100,
    hot: Switch = False,
    fsyncs: Switch = False,
    stages: Switch = False,
    patience_seconds: Seconds = 60.0,
    skip_verify: Switch = False,
    reads: int | None = None,
    cold: Switch = False,
    plot: Path | None = None,
    json: Json = False,
    flags: Flags = None,
) -> ExitCode:
    """Put a load on a system, and say what it did: orders a second, latencies, costs.

    Starts a fresh system in a temporary folder on free ports, with a carrier that
    takes every parcel at once; then only flags count, and neither the environment
    nor todoku.toml. With --data-dir the data is kept there, and what is there
    already is used. Exit code 1 if an order did not end, or a promise was broken.

    For example:

        todoku bench
        todoku bench --connections 256 --seconds 60 --plot bench.svg
        todoku bench --rate 200 --seconds 30 --json
        todoku bench --reads 500 --data-dir DIRECTORY

    Parameters
    ----------
    running
        Load the system that runs where the settings say. Its products bench-0000
        and so on, and the orders, stay there; it is not verified.
    connections
        How many connections place orders, each when its last is answered.
    rate
        Place so many orders a second instead, whatever the answers do; latencies
        are from when an order was due.
    seconds
        How long to place orders; 10 if --orders is not given either.
    orders
        How many orders to place.
    items
        How many different products are in an order.
    products
        Of how many products.
    hot
        One product is in every order.
    fsyncs
        Count them, which takes some percent more; not with --running.
    stages
        Show where the services' CPU time goes, stage by stage; that makes them
        some percent slower.
    patience_seconds
        How long the last orders may take to end.
    skip_verify
        Do not hold the databases against the promise at the end.
    reads
        Read each thing and the first page of each list so many times instead, one
        after the other, and say how long it took.
    cold
        With --reads: have them read from the disk (SQLite on Linux).
    plot
        Draw throughput and latency over time into this SVG file.
    json
        Print one JSON object.
    """
    from todoku.lab.bench.run import Wanted

    _require_sense(connections, rate, seconds, orders, items, products, reads)
    _require_possible(
        {
            "--running": running,
            "--rate": rate,
            "--seconds": seconds,
            "--orders": orders,
            "--hot": hot,
            "--fsyncs": fsyncs,
            "--stages": stages,
            "--reads": reads,
            "--cold": cold,
            "--skip-verify": skip_verify,
            "--plot": plot,
        }
    )
    if plot is not None and (plot.is_dir() or not plot.parent.is_dir()):
        raise CommandFailed(f"{plot} is no place for a file.", exit_code=ExitCode.USAGE)
    interrupt_on_stop_signals()
    wanted = Wanted(
        connections=connections,
        rate=rate,
        seconds=SECONDS if seconds is None and orders is None else seconds,
        orders=orders,
        items=items,
        products=products,
        hot=hot,
        stages=stages,
        patience_seconds=patience_seconds,
    )
    with tempfile.TemporaryDirectory(prefix="todoku-bench-") as folder:
        settings = (
            settings_from(flags).settings if running else _own_settings(flags or {}, Path(folder))
        )
        if reads is not None:
            require_orders(settings)
            stack = nullcontext() if running else _own_stack(settings, Path(folder))
            with stack:
                return time_reads(settings, reads, cold=cold, json=json)
        if running:
            measured = _load(wanted, settings, Path(folder))
        else:
            measured = _load_own(
                wanted, settings, Path(folder), verify=not skip_verify, count_fsyncs=fsyncs
            )
    report = measured.report
    if json:
        write_object(msgspec.json.encode(report))
    else:
        print_report(report)
    if plot is not None:
        _draw(measured, plot)
    return ExitCode.OK if report.good else ExitCode.FAILED


def _require_sense(
    connections: int,
    rate: float | None,
    seconds: float | None,
    orders: int | None,
    items: int,
    products: int,
    reads: int | None,
) -> None:
    for name, value in (
        ("--connections", connections),
        ("--rate", rate),
        ("--seconds", seconds),
        ("--orders", orders),
        ("--items", items),
        ("--reads", reads),
    ):
        most = RATE_MAX if name == "--rate" else LARGE
        if value is not None and not 0 < value <= most:  # So is what is not a number.
            raise CommandFailed(
                f"{name} must be above 0, and at most {most:,}.", exit_code=ExitCode.USAGE
            )
    if products < items:
        raise CommandFailed(
            f"{items} different items an order need as many --products.", exit_code=ExitCode.USAGE
        )


def _require_possible(given: Mapping[str, object]) -> None:
    """Refuse what would have no effect together with something else."""
    for name, without, why in ALONE:
        for other in without:
            if given[name] and given[other]:
                raise CommandFailed(f"{name} {why}: leave out {other}.", exit_code=ExitCode.USAGE)
    if given["--cold"] and not given["--reads"]:
        raise CommandFailed("--cold is about reading: give --reads too.", exit_code=ExitCode.USAGE)


def _own_settings(flags: Mapping[str, object], folder: Path) -> Settings:
    """The settings of a system of our own: from the flags, and beside them nothing of this machine's."""
    from todoku.lab.bench.stack import free_ports

    names = [*(f"{service}_port" for service in SYSTEM_HERE.names), "nats_port"]
    chosen = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {SYSTEM.variable: os.environ.get(SYSTEM.variable, "")}
    defaults = {**DEFAULTS, **chosen, "data_dir": to_text(folder / "data")}
    try:
        return load_settings(
            flags, defaults=defaults, environment=environment, directory=folder
        ).settings
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid


def _load_own(
    wanted: "Wanted", settings: Settings, folder: Path, *, verify: bool, count_fsyncs: bool
) -> "Measured":
    from todoku.lab.bench import stages
    from todoku.lab.bench.promise import broken_promises

    environment = stages.environment(folder) if wanted.stages else {}
    with _own_stack(settings, folder, environment=environment, count_fsyncs=count_fsyncs) as stack:
        measured = _load(wanted, settings, folder, stack)
        report = measured.report
        if verify:
            broken = broken_promises(settings, overdue_seconds=wanted.patience_seconds)
            report = msgspec.structs.replace(report, broken=broken)
    if wanted.stages:
        report = msgspec.structs.replace(report, stages=stages.an_order(folder, report))
    return msgspec.structs.replace(measured, report=report)


@contextmanager
def _own_stack(settings: Settings, folder: Path, **options: Any) -> Iterator["Stack"]:
    """A system of our own, and in words why there is none."""
    from todoku.lab.bench.fsyncs import CannotCount
    from todoku.lab.bench.stack import StackFailed, own_stack

    tether = (sys.executable, "-I", "-S", str(TETHER))
    try:
        with own_stack(settings, folder, tether=tether, **options) as stack:
            yield stack
    except CannotCount as failed:
        raise CommandFailed(str(failed), exit_code=ExitCode.CANNOT_START) from failed
    except StackFailed as failed:
        in_use = failed.exit_code == ExitCode.IN_USE
        code = ExitCode.IN_USE if in_use else ExitCode.CANNOT_START
        raise CommandFailed(str(failed), exit_code=code) from failed


def _load(
    wanted: "Wanted",
    settings: Settings,
    folder: Path,
    stack: "Stack | None" = None,
) -> "Measured":
    from todoku.lab.bench.run import ClientFailed, measure
    from todoku.lab.bench.services import ServiceRefused

    try:
        with _progress(wanted) as told:
            return measure(
                wanted,
                settings,
                pids=stack.pids if stack else {},
                folder=folder,
                told=told,
                fsyncs=stack.fsyncs if stack else dict,
                ready_seconds=stack.ready_seconds if stack else None,
            )
    except ServiceRefused as refused:
        raise CommandFailed(str(refused), exit_code=ExitCode.UNREACHABLE) from refused
    except ClientFailed as failed:
        raise CommandFailed(str(failed)) from failed


@contextmanager
def _progress(wanted: "Wanted") -> Iterator["Callable[[Told], None]"]:
    """A bar on stderr, and what it is to be told."""
    with Progress(
        TextColumn("placing orders"),
        BarColumn(),
        TextColumn("{task.fields[accepted]:>8,} accepted, {task.fields[rate]:>6,.0f}/s"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        refresh_per_second=4,
    ) as progress:
        bar = progress.add_task("load", total=1.0, accepted=0, rate=0.0)

        def told(load: "Told") -> None:
            shares = (
                load.seconds / wanted.seconds if wanted.seconds else 0.0,
                load.accepted / wanted.orders if wanted.orders else 0.0,
            )
            progress.update(
                bar,
                completed=min(1.0, max(shares)),
                accepted=load.accepted,
                rate=load.accepted / load.seconds,
            )

        yield told


def _draw(measured: "Measured", file: Path) -> None:
    from todoku.lab.bench.timeline import panels, svg

    load = measured.load
    picture = svg(measured.report.loop, panels(load.sent, load.answered, measured.ended))
    try:
        file.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file} cannot be written: {error.strerror}.") from error

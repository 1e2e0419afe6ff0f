"""`todoku bench`: measure throughput, latency and cost under load."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from todoku.cli.credential import credential
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.figures import print_report
from todoku.cli.flags import SYSTEM_HERE, Flags, settings_from
from todoku.cli.options import Flag, Json, Seconds
from todoku.cli.output import write_object
from todoku.cli.reads import require_orders, time_reads
from todoku.cli.signals import interrupt_on_stop_signals
from todoku.lab.bench.instruments import NO_INSTRUMENTS, Instruments
from todoku.settings import Settings, SettingsInvalid, to_environment, to_text
from todoku.system import SYSTEM, load_settings

if TYPE_CHECKING:
    from todoku.lab.bench.load import Progress
    from todoku.lab.bench.options import BenchOptions
    from todoku.lab.bench.report import BenchReport
    from todoku.lab.bench.run import Measurement
    from todoku.lab.replica import Replica
    from todoku.lab.stack import Stack

DEFAULTS = {
    "carrier_delay_seconds": "0",
    "carrier_success_rate": "1",
    "log_level": "warning",
    "console": "false",
}
"""The system is measured, and not the delay of a simulated carrier, nor the start of a console."""

SECONDS = 10.0
QUIESCENT_SECONDS_MAX = 20.0
LOG_LINES_SHOWN = 20

RATE_MAX = 100_000
LARGE = 100_000_000
"""The limit of all other figures."""

OF_DATABASES = ("--replicas", "--database-delay")
"""Options about the databases of a system of its own."""

EXCLUSIVE = (
    ("--running", ("--skip-verify",), "measures a system whose databases are not audited"),
    ("--running", OF_DATABASES, "measures a system as it is"),
    (
        "--reads",
        ("--rate", "--seconds", "--orders", "--hot", "--skip-verify", *OF_DATABASES),
        "places no orders",
    ),
)
"""Options, those that would have no effect with each, and why."""


def bench(
    *,
    running: Flag = False,
    connections: int = 64,
    rate: float | None = None,
    seconds: float | None = None,
    orders: int | None = None,
    items: int = 2,
    products: int = 100,
    hot: Flag = False,
    patience_seconds: Seconds = 60.0,
    skip_verify: Flag = False,
    reads: int | None = None,
    cold: Flag = False,
    replicas: int = 1,
    database_delay: float | None = None,
    json: Json = False,
    flags: Flags = None,
    instruments: Annotated[Instruments, Parameter(parse=False)] = NO_INSTRUMENTS,
) -> ExitCode:
    """Measure throughput, latency and cost under load.

    Starts a fresh system in a temporary folder on free ports, without the console
    and with a carrier that accepts every parcel at once. Its settings come from
    flags only, not from the environment or todoku.toml. With --data-dir the data is
    kept there, and existing data is used. With --auth required, each request has an
    API key: raise the limits of one caller, or switch --rate-limits off. Exit code
    1 if an order did not end, or an invariant is broken.

    For example:

        todoku bench
        todoku bench --connections 256 --seconds 60
        todoku bench --rate 200 --seconds 30 --json
        todoku bench --reads 500 --data-dir DIRECTORY

    Parameters
    ----------
    running
        Measure the running system that the settings describe. The products
        bench-0000 and so on, and the orders, stay there; it is not audited.
    connections
        How many connections place orders, each when its last order is answered.
    rate
        Place that many orders each second instead, independent of responses;
        latencies start when an order was due.
    seconds
        How long to place orders; 10 if --orders is not given either.
    orders
        How many orders to place.
    items
        How many different products are in an order.
    products
        How many products there are to choose from.
    hot
        Put one product into every order.
    patience_seconds
        How long the last orders may take to end.
    skip_verify
        Do not audit the databases at the end.
    reads
        Measure reads instead: each resource and the first page of each list, that
        many times, one after the other.
    cold
        With --reads: read from the disk, not from memory (SQLite on Linux).
    replicas
        How many processes of each service share its PostgreSQL database.
    database_delay
        Delay each round trip to PostgreSQL by that many milliseconds.
    json
        Print one JSON object.
    """
    from todoku.lab.bench.options import BenchOptions

    _require_in_range(
        {
            "--connections": connections,
            "--rate": rate,
            "--seconds": seconds,
            "--orders": orders,
            "--items": items,
            "--reads": reads,
            "--replicas": replicas,
            "--database-delay": database_delay,
        }
    )
    if products < items:
        raise CommandFailed(
            f"orders with {items} different items need at least {items} --products.",
            exit_code=ExitCode.USAGE,
        )
    _require_compatible(
        {
            "--running": running,
            "--rate": rate,
            "--seconds": seconds,
            "--orders": orders,
            "--hot": hot,
            "--reads": reads,
            "--cold": cold,
            "--skip-verify": skip_verify,
            "--replicas": replicas > 1,
            "--database-delay": database_delay,
        }
    )
    interrupt_on_stop_signals()
    options = BenchOptions(
        connections=connections,
        rate=rate,
        seconds=SECONDS if seconds is None and orders is None else seconds,
        orders=orders,
        items=items,
        products=products,
        hot=hot,
        patience_seconds=patience_seconds,
    )
    with tempfile.TemporaryDirectory(prefix="todoku-bench-") as temporary:
        folder = Path(temporary)
        settings = settings_from(flags).settings if running else _own_settings(flags or {}, folder)
        key = credential() if running else None
        if reads is not None:
            require_orders(settings)
            with nullcontext() if running else _own_stack(settings, folder, instruments):
                return time_reads(settings, reads, cold=cold, json=json, credential=key)
        if running:
            report = _measure(options, settings, folder, credential=key).report
        else:
            _require_shareable(settings, replicas)
            with _delayed(settings, database_delay) as delayed:
                report = _measure_own(
                    options,
                    delayed,
                    folder,
                    instruments,
                    audit=not skip_verify,
                    replicas=replicas,
                )
    if json:
        write_object(msgspec.json.encode(report))
    else:
        print_report(report)
    return ExitCode.OK if report.good else ExitCode.FAILED


def _require_in_range(given: Mapping[str, float | None]) -> None:
    for name, value in given.items():
        most = RATE_MAX if name == "--rate" else LARGE
        if value is not None and not 0 < value <= most:  # NaN is not in range either.
            raise CommandFailed(
                f"{name} must be above 0, and at most {most:,}.", exit_code=ExitCode.USAGE
            )


def _require_compatible(given: Mapping[str, object]) -> None:
    """Refuse options that would have no effect together with another."""
    for name, without, why in EXCLUSIVE:
        for other in without:
            if given[name] and given[other]:
                raise CommandFailed(f"{name} {why}: leave out {other}.", exit_code=ExitCode.USAGE)
    if given["--cold"] and not given["--reads"]:
        raise CommandFailed(
            "--cold has no effect without --reads: add it.", exit_code=ExitCode.USAGE
        )


def _require_shareable(settings: Settings, replicas: int) -> None:
    """Refuse several processes of a service on a database that only one can use."""
    from todoku.database.addresses import is_postgresql

    for name in SYSTEM_HERE.names if replicas > 1 else ():
        if not is_postgresql(settings.database(name)):
            raise CommandFailed(
                f"--replicas needs PostgreSQL: set --{name.replace('_', '-')}-database-url.",
                exit_code=ExitCode.USAGE,
            )


@contextmanager
def _delayed(settings: Settings, milliseconds: float | None) -> Iterator[Settings]:
    """Yield the settings, with a delay before each database if one is asked for."""
    if milliseconds is None:
        yield settings
        return
    from todoku.lab.bench.replicas import NoDelay, delayed_databases

    try:
        with delayed_databases(settings, milliseconds) as delayed:
            yield delayed
    except NoDelay as impossible:
        raise CommandFailed(
            f"--database-delay: {impossible}.", exit_code=ExitCode.USAGE
        ) from impossible


def _own_settings(flags: Mapping[str, object], folder: Path) -> Settings:
    """Return the settings of a system of its own, from flags and nothing else of this machine."""
    from todoku.lab.stack import free_port_settings

    environment = {SYSTEM.variable: os.environ.get(SYSTEM.variable, "")}
    data_dir = to_text(folder / "data")
    defaults = {**DEFAULTS, **free_port_settings(SYSTEM_HERE.names), "data_dir": data_dir}
    if flags.get("auth") == "required":
        defaults["bootstrap_key_file"] = to_text(folder / "key")
    try:
        return load_settings(
            flags, defaults=defaults, environment=environment, directory=folder
        ).settings
    except SettingsInvalid as invalid:
        raise CommandFailed("\n".join(invalid.problems), exit_code=ExitCode.USAGE) from invalid


def _measure_own(
    options: "BenchOptions",
    settings: Settings,
    folder: Path,
    instruments: Instruments,
    *,
    audit: bool,
    replicas: int,
) -> "BenchReport":
    from todoku.lab.bench.replicas import more_replicas
    from todoku.lab.databases import audit_when_quiescent, violations

    with ExitStack() as running:
        stack = running.enter_context(_own_stack(settings, folder, instruments))
        try:
            more = running.enter_context(more_replicas(stack, replicas))
        except (TimeoutError, ChildProcessError) as error:
            logged = stack.log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
            raise CommandFailed(
                "\n".join([f"{error}:", *logged]), exit_code=ExitCode.CANNOT_START
            ) from error
        measurement = _measure(options, settings, folder, stack, instruments, replicas=more)
        if audit:
            _, found = audit_when_quiescent(
                settings,
                seconds_max=QUIESCENT_SECONDS_MAX,
                overdue_seconds=options.patience_seconds,
            )
            report = msgspec.structs.replace(measurement.report, broken=violations(found))
            measurement = msgspec.structs.replace(measurement, report=report)
    return instruments.complete(measurement, folder)


@contextmanager
def _own_stack(settings: Settings, folder: Path, instruments: Instruments) -> Iterator["Stack"]:
    """Run a system of its own. Raises `CommandFailed` if it does not start or stay up."""
    from todoku.lab.stack import Stack, StackFailed, running_stack

    stack = Stack(
        settings,
        folder / "up.log",
        environment={**to_environment(settings), **instruments.environment(folder)},
        folder=folder,
        spawn=instruments.spawn,
    )
    try:
        with running_stack(stack):
            yield stack
    except StackFailed as failed:
        in_use = failed.exit_code == ExitCode.IN_USE
        code = ExitCode.IN_USE if in_use else ExitCode.CANNOT_START
        raise CommandFailed(str(failed), exit_code=code) from failed


def _measure(
    options: "BenchOptions",
    settings: Settings,
    folder: Path,
    stack: "Stack | None" = None,
    instruments: Instruments = NO_INSTRUMENTS,
    credential: str | None = None,
    replicas: "Mapping[str, Replica] | None" = None,
) -> "Measurement":
    from todoku.lab.bench.run import LoadFailed, measure
    from todoku.lab.http import HttpFailed

    try:
        with _progress_bar(options) as on_progress:
            return measure(
                options,
                settings,
                pids=stack.pids() if stack else {},
                folder=folder,
                on_progress=on_progress,
                instruments=instruments,
                ready_seconds=stack.ready_seconds if stack else None,
                credential=credential,
                replicas=replicas,
            )
    except HttpFailed as failed:
        raise CommandFailed(str(failed), exit_code=ExitCode.UNREACHABLE) from failed
    except LoadFailed as failed:
        raise CommandFailed(str(failed)) from failed


@contextmanager
def _progress_bar(options: "BenchOptions") -> Iterator["Callable[[Progress], None]"]:
    """Show a progress bar on stderr; yield the function that updates it."""
    with ProgressBar(
        TextColumn("placing orders"),
        BarColumn(),
        TextColumn("{task.fields[accepted]:>8,} accepted, {task.fields[rate]:>6,.0f}/s"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        refresh_per_second=4,
    ) as bar:
        task = bar.add_task("load", total=1.0, accepted=0, rate=0.0)

        def update(progress: "Progress") -> None:
            shares = (
                progress.seconds / options.seconds if options.seconds else 0.0,
                progress.accepted / options.orders if options.orders else 0.0,
            )
            bar.update(
                task,
                completed=min(1.0, max(shares)),
                accepted=progress.accepted,
                rate=progress.accepted / progress.seconds,
            )

        yield update

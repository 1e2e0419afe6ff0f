"""`todoku bench --reads`: measure the latency of reads."""

import sys
from pathlib import Path

import msgspec

from todoku.cli.databases import file_of
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.output import KEY, NUMBER, cells, console, table, write_object
from todoku.settings import Settings
from todoku.system import load_system

NO_ORDERS = """There are no orders to read. Fill a folder, and name it:
  python -m todoku.lab.bench.fill DIRECTORY 1000000
  todoku bench --reads 500 --data-dir DIRECTORY"""


def require_orders(settings: Settings) -> None:
    """Raise `CommandFailed` if the folder has no database: it would be created empty."""
    file = file_of(settings.database("orders"))
    if file is not None and not file.exists():
        raise CommandFailed(NO_ORDERS)


def _files(settings: Settings) -> list[Path]:
    """Return the database files, if they can be dropped from the page cache."""
    files = [file_of(settings.database(service)) for service in load_system(settings).names]
    found = [file for file in files if file is not None and file.exists()]
    if sys.platform != "linux" or len(found) < len(files):
        raise CommandFailed(
            "Reading from the disk needs Linux and SQLite databases on this machine: "
            "leave out --cold.",
            exit_code=ExitCode.USAGE,
        )
    return found


def time_reads(
    settings: Settings, count: int, *, cold: bool, json: bool, credential: str | None = None
) -> ExitCode:
    """Measure the running system that the settings describe, and print the latencies."""
    from todoku.database import DatabaseError
    from todoku.lab.bench.reads import NothingToRead, measure_reads
    from todoku.lab.http import HttpFailed

    try:
        files = _files(settings) if cold else ()
        report = measure_reads(settings, count, cold=files, credential=credential)
    except HttpFailed as failed:
        raise CommandFailed(str(failed), exit_code=ExitCode.UNREACHABLE) from failed
    except DatabaseError as error:
        raise CommandFailed(
            f"the orders to read cannot be drawn from the database: {error}"
        ) from error
    except NothingToRead as nothing:
        raise CommandFailed(NO_ORDERS) from nothing
    if json:
        write_object(msgspec.json.encode(report))
        return ExitCode.OK
    where = "from the disk" if report.cold else "from memory or disk"
    out = console()
    out.print(f"{count:,} times each, {where}, among {report.orders:,} orders\n")
    rows = table(KEY("ms"), *map(NUMBER, ("p50", "p95", "p99", "max")))
    for name, latency in report.latencies.items():
        figures = (latency.p50, latency.p95, latency.p99, latency.max)
        rows.add_row(*cells(name, *(f"{ms:,.1f}" for ms in figures)))
    out.print(rows)
    return ExitCode.OK

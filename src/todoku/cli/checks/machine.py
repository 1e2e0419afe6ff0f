"""The machine: the versions of what Todoku stands on, its disk and its clock."""

import importlib.util
import os
import platform
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from todoku.broker import embedded
from todoku.cli.checks import Finding, ok, warning, wrong
from todoku.local.holders import holder
from todoku.settings import SERVICES, Settings

SQLITE_VERSION_MIN = (3, 37)
"""The first version with STRICT tables."""

SPARE_BYTES = 2**30
SPARE_BYTES_MIN = 100 * 2**20

FSYNC_SAMPLES = 20
FSYNC_SECONDS_MAX = 0.025
"""Above this, waiting for the disk is what bounds the orders a second."""

FSYNC_SECONDS_MIN = 0.000_02
"""Nothing that survives a power cut is quicker than this."""

CLOCK_SAMPLE_SECONDS = 0.2
CLOCK_JUMP_SECONDS_MAX = 0.05
FUTURE_SECONDS_MAX = 2.0


def versions(settings: Settings) -> Iterator[Finding]:
    """Python, SQLite, the NATS server and the PostgreSQL driver."""
    yield ok("python", platform.python_version())
    yield _sqlite()
    if settings.nats_url is None:
        yield _nats_server()
    yield _postgresql_driver(settings)


def _sqlite() -> Finding:
    if sqlite3.sqlite_version_info >= SQLITE_VERSION_MIN:
        return ok("sqlite", sqlite3.sqlite_version)
    wanted = ".".join(map(str, SQLITE_VERSION_MIN))
    return wrong(
        "sqlite", sqlite3.sqlite_version, fix=f"use a Python with SQLite {wanted} or newer"
    )


def _nats_server() -> Finding:
    try:
        server = embedded.find_server()
    except embedded.ServerNotFound as error:
        return wrong("nats-server", "none that can be used", fix=str(error))
    return ok("nats-server", f"{'.'.join(map(str, server.version))}, {server.path}")


def _postgresql_driver(settings: Settings) -> Finding:
    check = "postgresql driver"
    wanted = any(str(settings.database(name)).startswith("postgresql") for name in SERVICES)
    if importlib.util.find_spec("psycopg"):
        import psycopg

        return ok(check, f"psycopg {psycopg.__version__}")
    if wanted:
        return wrong(check, "not installed", fix="pip install 'todoku[postgres]'")
    return ok(check, "not installed, and not needed for SQLite")


def disk(settings: Settings) -> Iterator[Finding]:
    """The data folder: whether it can be used, its free space, and how long it takes to be sure."""
    folder = settings.data_dir
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield wrong(
            "data folder",
            f"{there} cannot be written",
            fix="choose another with --data-dir, or give this user the right to write there",
        )
        return
    yield _data_folder(folder)
    yield _free_space(there, settings)
    yield _sync_latency(there)


def _data_folder(folder: Path) -> Finding:
    if not folder.exists():
        return ok("data folder", f"{folder} is not there yet; it is made at the first start")
    user = holder(folder / "up.lock")
    return ok("data folder", f"{folder}, in use by {user}" if user else f"{folder}, not in use")


def _free_space(folder: Path, settings: Settings) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:,.1f} GiB free in {folder}"
    if free < SPARE_BYTES_MIN:
        return wrong("disk space", found, fix="free some space: without it, nothing is accepted")
    if free < SPARE_BYTES + settings.stream_max_bytes:
        return warning("disk space", found, fix="free some space, or lower --stream-max-bytes")
    return ok("disk space", found)


def _sync_latency(folder: Path) -> Finding:
    check, seconds = "disk sync", statistics.median(_syncs(folder))
    found = f"{seconds * 1_000:,.2f} ms until a write is safe"
    if seconds > FSYNC_SECONDS_MAX:
        return warning(check, found, fix="use a quicker local disk for --data-dir")
    if seconds < FSYNC_SECONDS_MIN:
        return warning(
            check, found, fix="too quick to be true: keep --data-dir on a disk, not in memory"
        )
    return ok(check, found)


def _syncs(folder: Path) -> Iterator[float]:
    """How many seconds each of some small synced writes takes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNC_SAMPLES):
            started = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            yield time.perf_counter() - started


def clock(settings: Settings) -> Iterator[Finding]:
    """Whether the wall clock runs evenly, and has not gone back."""
    wall, steady = time.time(), time.monotonic()
    time.sleep(CLOCK_SAMPLE_SECONDS)
    jump = (time.time() - wall) - (time.monotonic() - steady)
    if abs(jump) > CLOCK_JUMP_SECONDS_MAX:
        yield warning(
            "clock",
            f"jumped by {jump:+.3f} s while it was looked at",
            fix="let the time service slew the clock instead of setting it",
        )
        return
    ahead = _newest_change(settings.data_dir) - time.time()
    if ahead > FUTURE_SECONDS_MAX:
        yield warning(
            "clock",
            f"the data folder was changed {ahead:,.0f} s in the future: the clock went back",
            fix="set the clock right; until then, what is due waits that long",
        )
        return
    yield ok("clock", f"runs evenly; it is {time.strftime('%Y-%m-%d %H:%M:%S %Z')}")


def _newest_change(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.glob("*.db*")), default=0.0)

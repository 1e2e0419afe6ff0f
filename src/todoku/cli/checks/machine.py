"""Check the machine: versions of dependencies, disk and clock."""

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
from todoku.database import is_postgresql
from todoku.diagnosis import CheckResult, ok, warning, wrong
from todoku.local.holders import holder
from todoku.settings import Settings
from todoku.system import load_system

SQLITE_VERSION_MIN = (3, 37)
"""The first version with STRICT tables."""

SPARE_BYTES = 2**30
SPARE_BYTES_MIN = 100 * 2**20

FSYNC_SAMPLES = 20
FSYNC_SECONDS_MAX = 0.025
"""Above this, the disk limits the throughput."""

FSYNC_SECONDS_MIN = 0.000_02
"""No disk that survives a power cut is faster than this."""

CLOCK_SAMPLE_SECONDS = 0.2
CLOCK_JUMP_SECONDS_MAX = 0.05
FUTURE_SECONDS_MAX = 2.0


def versions(settings: Settings) -> Iterator[CheckResult]:
    """Check Python, SQLite, the NATS server and the PostgreSQL driver."""
    yield ok("python", platform.python_version())
    yield _sqlite()
    if settings.nats_url is None:
        yield _nats_server(settings)
    yield _postgresql_driver(settings)


def _sqlite() -> CheckResult:
    if sqlite3.sqlite_version_info >= SQLITE_VERSION_MIN:
        return ok("sqlite", sqlite3.sqlite_version)
    wanted = ".".join(map(str, SQLITE_VERSION_MIN))
    return wrong(
        "sqlite", sqlite3.sqlite_version, fix=f"use a Python with SQLite {wanted} or newer"
    )


def _nats_server(settings: Settings) -> CheckResult:
    try:
        server = embedded.find_server(settings.nats_server)
    except embedded.ServerNotFound as error:
        return wrong("nats-server", "no usable server", fix=str(error))
    return ok("nats-server", f"{'.'.join(map(str, server.version))}, {server.path}")


def _postgresql_driver(settings: Settings) -> CheckResult:
    check = "postgresql driver"
    wanted = any(is_postgresql(settings.database(name)) for name in load_system(settings).names)
    if importlib.util.find_spec("psycopg"):
        import psycopg

        return ok(check, f"psycopg {psycopg.__version__}")
    if wanted:
        return wrong(check, "not installed", fix="pip install 'todoku[postgres]'")
    return ok(check, "not installed; not needed for SQLite")


def disk(settings: Settings) -> Iterator[CheckResult]:
    """Check the data folder: writable, free space, and the latency of fsync."""
    folder = settings.data_dir
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield wrong(
            "data folder",
            f"{existing} is not writable",
            fix="choose another folder with --data-dir, or grant this user write access",
        )
        return
    yield _data_folder(folder)
    yield _free_space(existing, settings)
    yield _sync_latency(existing)


def _data_folder(folder: Path) -> CheckResult:
    if not folder.exists():
        return ok("data folder", f"{folder} does not exist yet; the first start creates it")
    user = holder(folder / "up.lock")
    return ok("data folder", f"{folder}, in use by {user}" if user else f"{folder}, not in use")


def _free_space(folder: Path, settings: Settings) -> CheckResult:
    free = shutil.disk_usage(folder).free
    found = f"{free / 2**30:,.1f} GiB free in {folder}"
    if free < SPARE_BYTES_MIN:
        return wrong("disk space", found, fix="free some space: without it, no orders are accepted")
    if free < SPARE_BYTES + settings.stream_max_bytes:
        return warning("disk space", found, fix="free some space, or lower --stream-max-bytes")
    return ok("disk space", found)


def _sync_latency(folder: Path) -> CheckResult:
    check = "disk sync"
    try:
        seconds = statistics.median(_syncs(folder))
    except OSError as error:
        found = f"cannot write to {folder}: {error.strerror}"
        return wrong(check, found, fix="free some space, or choose another folder with --data-dir")
    found = f"{seconds * 1_000:,.2f} ms per synced write"
    if seconds > FSYNC_SECONDS_MAX:
        return warning(check, found, fix="use a faster local disk for --data-dir")
    if seconds < FSYNC_SECONDS_MIN:
        return warning(check, found, fix="too fast for a disk: do not keep --data-dir in memory")
    return ok(check, found)


def _syncs(folder: Path) -> Iterator[float]:
    """Yield the seconds that each of some small synced writes takes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(FSYNC_SAMPLES):
            started = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            yield time.perf_counter() - started


def clock(settings: Settings) -> Iterator[CheckResult]:
    """Check that the wall clock runs evenly and has not gone back."""
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(CLOCK_SAMPLE_SECONDS)
    jump = (time.time() - wall) - (time.monotonic() - monotonic)
    if abs(jump) > CLOCK_JUMP_SECONDS_MAX:
        yield warning(
            "clock",
            f"jumped by {jump:+.3f} s during this check",
            fix="let the time service slew the clock instead of setting it",
        )
        return
    ahead = _newest_change(settings.data_dir) - time.time()
    if ahead > FUTURE_SECONDS_MAX:
        yield warning(
            "clock",
            f"the data folder was modified {ahead:,.0f} s in the future: the clock went back",
            fix="correct the clock if it is behind; running services follow within 5 s",
        )
        return
    yield ok("clock", f"runs evenly; it is {time.strftime('%Y-%m-%d %H:%M:%S %Z')}")


def _newest_change(folder: Path) -> float:
    return max((path.stat().st_mtime for path in folder.glob("*.db*")), default=0.0)

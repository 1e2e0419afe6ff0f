"""Copies of several SQLite databases as they were at one and the same instant, while they are in use."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from todoku.database import sqlite
from todoku.database.errors import DatabaseBroken, DatabaseUnavailable, DatabaseUnsuitable

ATTEMPTS_MAX = 1_000
PAUSE_SECONDS = 0.002


def back_up(sources: Mapping[Path, Path]) -> None:
    """Copy each database to its target, as all of them were at one instant, and check the copies.

    What is said and not yet heard at that instant is then in the outbox of who said it, so the
    copies make a whole system again by themselves. Nobody is kept from writing meanwhile. A copy is a
    single file, without a log beside it, and it is on the disk when this returns.

    Raises `DatabaseUnavailable` when the databases change too fast to be caught together or a disk
    is full, `DatabaseUnsuitable` when one is not there, `DatabaseBroken` when a copy is damaged.
    """
    with ExitStack() as stack:
        snapshots = [stack.enter_context(_reading(path)) for path in sources]
        watchers = [stack.enter_context(_reading(path)) for path in sources]
        _begin_together(snapshots, watchers)
        for (source, target), snapshot in zip(sources.items(), snapshots, strict=True):
            with _translated(source):
                _copy(snapshot, target)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise DatabaseUnsuitable(f"There is no database at {path}.")
    with _translated(path), closing(sqlite.connect_for_reading(path)) as connection:
        yield connection


def _begin_together(
    snapshots: Sequence[sqlite3.Connection], watchers: Sequence[sqlite3.Connection]
) -> None:
    """Begin to read all databases as of one instant: no commit anywhere since the first was begun."""
    for _ in range(ATTEMPTS_MAX):
        before = _versions(watchers)
        for snapshot in snapshots:
            snapshot.execute("BEGIN")
            snapshot.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if _versions(watchers) == before:
            return
        for snapshot in snapshots:
            snapshot.execute("ROLLBACK")
        time.sleep(PAUSE_SECONDS)
    raise DatabaseUnavailable(
        f"The databases changed during each of {ATTEMPTS_MAX} attempts to read them as of one"
        " instant: try again when less is going on."
    )


def _versions(watchers: Sequence[sqlite3.Connection]) -> list[int]:
    """Numbers that change when anybody commits."""
    return [watcher.execute("PRAGMA data_version").fetchone()[0] for watcher in watchers]


def _copy(snapshot: sqlite3.Connection, target: Path) -> None:
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        snapshot.backup(copy)
        # Otherwise it would want a log and an index beside it as soon as somebody looks into it.
        copy.execute("PRAGMA journal_mode = delete")
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DatabaseBroken(f"{target}: {verdict}")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Say what an error of the driver means."""
    try:
        yield
    except sqlite3.Error as error:
        meaning = sqlite.translate(error, path)
        raise (meaning or error) from error

"""Copy several SQLite databases as of one instant, while they are in use."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from todoku.database import sqlite
from todoku.database.errors import DatabaseAbsent, DatabaseBroken, DatabaseUnavailable

Mark = Callable[[sqlite3.Connection], None]
"""Changes a copy, so that it is known to be one."""

ATTEMPTS_MAX = 1_000
PAUSE_SECONDS = 0.002


def back_up(sources: Mapping[Path, Path], *, mark: Mark | None = None) -> None:
    """Copy each database to its target, as all of them were at one instant, and check the copies.

    `mark` is called with a connection to each copy, so that it is known to be one when it is used.
    An event that is published and not yet consumed at that instant is in its publisher's outbox, so
    the copies are a complete system by themselves. Writers are not blocked. A copy is a single
    file, without a log beside it, and it is on the disk when this returns.

    Raises `DatabaseUnavailable` when the databases change too often to be read at one instant or a
    disk is full, `DatabaseAbsent` when one does not exist, `DatabaseBroken` when a copy is damaged.
    """
    with ExitStack() as stack:
        snapshots = [stack.enter_context(_reading(path)) for path in sources]
        watchers = {path: stack.enter_context(_reading(path)) for path in sources}
        _begin_together(snapshots, watchers)
        for (source, target), snapshot in zip(sources.items(), snapshots, strict=True):
            with _translated(source):
                _copy(snapshot, target, mark)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    if not path.is_file():
        raise DatabaseAbsent(f"There is no database at {path}.")
    with _translated(path), closing(sqlite.connect_for_reading(path)) as connection:
        yield connection


def _begin_together(
    snapshots: Sequence[sqlite3.Connection], watchers: Mapping[Path, sqlite3.Connection]
) -> None:
    """Begin a snapshot of all databases as of one instant: without a commit anywhere in between."""
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


def _versions(watchers: Mapping[Path, sqlite3.Connection]) -> list[object]:
    """Return what changes with any commit."""
    return [version(path, watcher) for path, watcher in watchers.items()]


def version(path: Path, watcher: sqlite3.Connection) -> object:
    """Return what changes with any commit to a database."""
    if not os.access(path.parent, os.W_OK) and not _size(path.with_name(path.name + "-wal")):
        # Nobody has it open for writing. In a read-only folder, such as a mounted snapshot, SQLite builds
        # its index anew for each look then, and takes that for a change.
        found = path.stat()
        return found.st_mtime_ns, found.st_size
    return watcher.execute("PRAGMA data_version").fetchone()[0]


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _copy(snapshot: sqlite3.Connection, target: Path, mark: Mark | None) -> None:
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        snapshot.backup(copy)
        # Otherwise reading it would create a log and an index beside it.
        copy.execute("PRAGMA journal_mode = delete")
        if mark is not None:
            mark(copy)
        (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise DatabaseBroken(f"{target}: {verdict}")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Translate an error of the driver."""
    try:
        yield
    except sqlite3.Error as error:
        meaning = sqlite.translate(error, path)
        raise (meaning or error) from error

"""Finds which process holds a lock."""

from collections.abc import Iterator
from pathlib import Path

from todoku.local.processes import describe

LOCKS = Path("/proc/locks")
WAL_WRITE_LOCK = "120"
"""The byte of SQLite's file `-shm` that whoever writes has locked. Source: wal.c of SQLite."""


def holder(lock: Path) -> str | None:
    """Return the process that holds a lock on this file, as `process 4711 (todoku run orders)`.

    None if there is none, and outside of Linux, where it is unknown.
    """
    return next((describe(pid) for pid, _ in _holders(lock)), None)


def writer(database: Path) -> int | None:
    """Return the process that has the write lock of a SQLite database now; None if there is none, and outside
    of Linux, where it is unknown."""
    shared_memory = database.with_name(f"{database.name}-shm")
    return next((pid for pid, first in _holders(shared_memory) if first == WAL_WRITE_LOCK), None)


def _holders(file: Path) -> Iterator[tuple[int, str]]:
    """Yield each process that holds a lock on a file, and the first byte of what it has locked."""
    try:
        inode = file.stat().st_ino
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        if "->" in line:  # It waits for a lock.
            continue
        # 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
        words = line.split()
        if words[5].rpartition(":")[2] == str(inode) and int(words[4]) > 0:
            yield int(words[4]), words[6]

"""Finds which process holds a lock file."""

from pathlib import Path

from todoku.local.processes import describe

LOCKS = Path("/proc/locks")


def holder(lock: Path) -> str | None:
    """Return the process that holds a lock on this file, as `process 4711 (todoku run orders)`.

    None if there is none, and outside of Linux, where it is unknown.
    """
    try:
        inode = lock.stat().st_ino
        held = [line.split() for line in LOCKS.read_text().splitlines()]
    except OSError:
        return None
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF
    owners = [int(words[4]) for words in held if words[5].rpartition(":")[2] == str(inode)]
    return next((describe(pid) for pid in owners if pid > 0), None)

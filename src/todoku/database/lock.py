"""Provide a lock between processes that is released when its holder ends."""

import fcntl
import os
import time
from pathlib import Path

from todoku.database.errors import DatabaseInUse, DatabaseUnsuitable

POLL_SECONDS = 0.05


class FileLock:
    """Hold an exclusive `flock` on a file, from the constructor until `release`.

    The kernel releases it when the process ends, however it ends. The file itself stays: deleting
    it would let two processes hold locks on two files of the same name.

    Raises `DatabaseInUse` when another process still holds it after `wait_seconds`.
    """

    def __init__(self, path: Path, *, wait_seconds: float = 0.0) -> None:
        self.path = path
        try:
            self._descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise DatabaseUnsuitable(
                f"The lock file {path} cannot be opened ({error.strerror}): "
                "give this user the right to write in that folder."
            ) from error
        try:
            self._acquire(time.monotonic() + wait_seconds)
        except BaseException:
            self.release()
            raise

    def _acquire(self, deadline: float) -> None:
        # flock has no timeout of its own: poll.
        while not self._try():
            if time.monotonic() >= deadline:
                raise DatabaseInUse(
                    f"Another process holds {self.path}. Stop that process "
                    f"(`fuser {self.path}` shows which one it is) or use another folder."
                )
            time.sleep(POLL_SECONDS)

    def _try(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

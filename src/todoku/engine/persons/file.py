"""The erasures outside of the database and of its backups, in a file beside them."""

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from todoku.engine.persons.erasures import Erasure

log = structlog.get_logger(__name__)


class ErasureFile:
    """A file with an erasure a line, as JSON. A backup of the databases does not contain it, so that a
    restored database learns from it what was erased since the backup."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[Erasure]:
        """Return the erasures in the file; a line that was cut off by a crash is left out."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in filter(None, lines):
            try:
                found.append(msgspec.json.decode(line, type=Erasure))
            except msgspec.DecodeError:
                log.warning("erasure_unreadable", file=str(self._path))
        return found

    def add(self, erasures: Iterable[Erasure]) -> None:
        """Add erasures at the end; they are on the disk when this returns."""
        lines = b"".join(msgspec.json.encode(each) + b"\n" for each in erasures)
        if not lines:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A line that was cut off must not swallow the next one.
        with self._path.open("ab") as file:
            file.write(b"\n" + lines if file.tell() else lines)
            file.flush()
            os.fsync(file.fileno())

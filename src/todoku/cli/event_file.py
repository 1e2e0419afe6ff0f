"""A file of exported events that is continued exactly where it was, also after a kill."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode


class Mark(msgspec.Struct, frozen=True):
    """How far an export has come: the cursor, and how long the file was then."""

    after: str
    bytes: int


class EventFile:
    """Appends events to a file. The mark beside it is written after them; what the file has behind its mark
    is cut off, because it will be written again."""

    def __init__(self, path: Path) -> None:
        self._mark_path = path.with_name(path.name + ".cursor")
        self._path = path
        self._mark = self._read_mark()
        if self._mark is None and path.exists() and path.stat().st_size:
            raise CommandFailed(
                f"{path} exists, without {self._mark_path.name}, which says where it ends in the feed: "
                "remove it, or write to another file.",
                exit_code=ExitCode.USAGE,
            )
        try:
            self._file = path.open("ab")
        except OSError as error:
            raise CommandFailed(
                f"{path} cannot be written: {error.strerror}. Name a file in a folder that exists.",
                exit_code=ExitCode.USAGE,
            ) from error
        self._file.truncate(0 if self._mark is None else self._mark.bytes)

    @property
    def after(self) -> str | None:
        """Return the cursor behind what the file has; None if it has nothing."""
        return None if self._mark is None else self._mark.after

    def append(self, events: Iterable[bytes], after: str) -> None:
        """Append events, and note the cursor behind them."""
        for event in events:
            self._file.write(event + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._mark = Mark(after, os.fstat(self._file.fileno()).st_size)
        written = self._mark_path.with_name(self._mark_path.name + ".partial")
        written.write_bytes(msgspec.json.encode(self._mark))
        written.replace(self._mark_path)

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _read_mark(self) -> Mark | None:
        if not self._mark_path.exists():
            return None
        try:
            mark = msgspec.json.decode(self._mark_path.read_bytes(), type=Mark)
        except msgspec.DecodeError:
            mark = Mark("", -1)
        size = self._path.stat().st_size if self._path.exists() else -1
        if not 0 <= mark.bytes <= size:
            raise CommandFailed(
                f"{self._mark_path} does not fit {self._path}: remove both, and export again.",
                exit_code=ExitCode.USAGE,
            )
        return mark

"""Spans that are not exported yet: in memory, and in files that outlive a killed process.

Other services refer to a span as soon as its transaction is committed, so a span that dies with its process
would tear its trace apart. So spans are written before the commit (to the page cache, without fsync: a kill
loses nothing, a power cut the last second), and what a process left behind is exported by the next one.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
import structlog
from uuid_utils import uuid7

from todoku.telemetry.encoding import SPAN, records, span_id_of, varint

log = structlog.get_logger(__name__)

BYTES_MAX: Final = 64 * 2**20
"""How many bytes of spans are kept at most while nothing takes them; the oldest are dropped."""

ADDED_MAX: Final = 1000
"""How many spans are added at most until they are written."""

NONE: Final[Mapping[str, bytes]] = {}

UNFINISHED: Final = 0x7A
"""The tag of a span that has begun, to be exported only if its process ended before it."""


class Batch(msgspec.Struct, frozen=True):
    """So many spans to be exported together, in pieces of together `size` bytes, and the file that has them
    until then."""

    spans: Sequence[bytes]
    size: int
    count: int
    path: Path | None
    descriptor: int | None


class SpanStore:
    """The spans of one process of a service, in the folder `folder`; safe for threads.

    Where the folder cannot be written, spans are in memory only.
    """

    def __init__(self, folder: Path, service: str, *, bytes_max: int = BYTES_MAX) -> None:
        self._folder, self._service = folder, service
        self._bytes_max = bytes_max
        self._lock = Lock()
        self._name = f"{service}-{uuid7()}"
        self._files = 0
        self._added: list[bytes] = []
        self._kept: list[bytes] = []
        self._kept_count = self._kept_bytes = 0
        self._unfinished: dict[str, bytes] = {}
        self._waiting: deque[Batch] = deque()
        self._waiting_bytes = 0
        self.dropped = 0
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path, self._descriptor = self._open()

    def add(self, span: bytes) -> None:
        """Keep a span that nothing refers to yet; it is written with the next ones."""
        self._added.append(span)  # Without the lock: appending is one step, and so is taking them.
        if len(self._added) >= ADDED_MAX:
            self.write(b"", 0)

    def write(self, spans: bytes, count: int, unfinished: Mapping[str, bytes] = NONE) -> None:
        """Keep so many spans, and write them. The `unfinished` ones, each with its name, have begun and will
        be `finished`."""
        with self._lock:
            data = self._keep_added()
            if spans:
                self._keep(spans, count)
            if unfinished:
                begun = {name: b"\x7a" + span[1:] for name, span in unfinished.items()}
                self._unfinished.update(begun)
                self._write(b"".join((data, spans, *begun.values())))
            else:
                self._write(data + spans)
            if self._kept_bytes > self._bytes_max // 8:
                self._rotate()

    def finished(self, name: str, span: bytes) -> None:
        """Keep a span that was unfinished."""
        with self._lock:
            self._added.append(span)
            self._unfinished.pop(name, None)

    def take(self) -> Batch | None:
        """Return the oldest spans that wait for their export, None if there are none."""
        with self._lock:
            # While nothing takes them, they gather in few files.
            if (self._kept or self._added) and not self._waiting:
                self._rotate()
            return self._waiting[0] if self._waiting else None

    def done(self, batch: Batch) -> None:
        """Forget spans that were exported, or that will never be taken."""
        with self._lock:
            if self._waiting and self._waiting[0] is batch:
                self._waiting.popleft()
                self._waiting_bytes -= batch.size
                _delete(batch)

    def close(self) -> None:
        """Write what is left, and release the files: another process may export them."""
        with self._lock:
            self._write(self._keep_added())
            if not self._kept and not self._unfinished and self._path is not None:
                _delete(Batch((), 0, 0, self._path, self._descriptor))
            elif self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None
            for batch in self._waiting:
                if batch.descriptor is not None:
                    os.close(batch.descriptor)
            self._waiting.clear()

    def adopt(self) -> int:
        """Take over what ended processes of this service have left behind; return how many spans."""
        found = 0
        for path in sorted(self._folder.glob(f"{self._service}-*.spans")):
            descriptor = _claim(path)
            if descriptor is None:
                continue
            spans = list(_left_behind(_content(descriptor)))
            batch = Batch(spans, sum(map(len, spans)), len(spans), path, descriptor)
            if not spans:
                _delete(batch)
                continue
            found += len(spans)
            with self._lock:
                self._wait(batch)
        return found

    def _keep_added(self) -> bytes:
        """Keep what was added meanwhile; return it, to be written."""
        added = self._added[:]
        if not added:
            return b""
        del self._added[: len(added)]
        spans = b"".join(added)
        self._keep(spans, len(added))
        return spans

    def _keep(self, spans: bytes, count: int) -> None:
        self._kept.append(spans)
        self._kept_count += count
        self._kept_bytes += len(spans)

    def _rotate(self) -> None:
        """Let what is kept wait for its export, and begin another file with what is unfinished."""
        self._write(self._keep_added())
        batch = Batch(self._kept, self._kept_bytes, self._kept_count, self._path, self._descriptor)
        self._kept, self._kept_count, self._kept_bytes = [], 0, 0
        self._path, self._descriptor = self._open()
        self._write(b"".join(self._unfinished.values()))
        self._wait(batch)

    def _wait(self, batch: Batch) -> None:
        self._waiting.append(batch)
        self._waiting_bytes += batch.size
        while self._waiting_bytes > self._bytes_max and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._waiting_bytes -= oldest.size
            self.dropped += oldest.count
            _delete(oldest)

    def _open(self) -> tuple[Path | None, int | None]:
        self._files += 1
        path = self._folder / f"{self._name}-{self._files}.spans"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        except OSError as error:
            log.warning("spans_only_in_memory", path=str(path), error=str(error))
            return None, None
        with suppress(OSError):  # Not every file system has locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, descriptor

    def _write(self, data: bytes) -> None:
        if not data or self._descriptor is None:
            return
        try:
            if os.write(self._descriptor, data) < len(data):
                raise OSError("only a part could be written")
        except OSError as error:  # A full disk must not stop orders: the spans are in memory, too.
            log.warning("spans_only_in_memory", path=str(self._path), error=str(error))
            os.close(self._descriptor)
            self._descriptor = None


def _claim(path: Path) -> int | None:
    """Return a file that no living process holds, locked; None if one does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.stat(path)  # Whoever held it may have deleted it just now.
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read()


def _left_behind(data: bytes) -> Iterator[bytes]:
    """Yield the spans of a file whose process has ended, those that it had not finished at the end."""
    unfinished: dict[bytes, bytes] = {}
    finished: set[bytes] = set()
    for tag, content in records(data):
        if tag == SPAN:
            finished.add(span_id_of(content))
            yield _record(content)
        elif tag == UNFINISHED:
            unfinished[span_id_of(content)] = content
    for span_id, content in unfinished.items():
        if span_id not in finished:
            yield _record(content)


def _record(content: bytes) -> bytes:
    return b"\x12" + varint(len(content)) + content


def _delete(batch: Batch) -> None:
    with suppress(OSError):
        if batch.path is not None:
            batch.path.unlink()
    if batch.descriptor is not None:
        with suppress(OSError):
            os.close(batch.descriptor)

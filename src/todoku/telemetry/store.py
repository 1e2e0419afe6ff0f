"""Spans that are not exported yet, in files that outlive a killed process.

Other services refer to a span as soon as its transaction is committed, so a span that dies with its process
would tear its trace apart. So spans are written before the commit (to the page cache, without fsync: a kill
loses nothing, a power cut the last second), and what a process left behind is exported by the next one. The
files are their only copy: they are encoded in memory that is used again at once, which is much faster than
memory that holds them for a second.
"""

import fcntl
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec
import structlog
from uuid_utils import uuid7

from todoku.telemetry.encoding import SPAN, UNFINISHED, records, span_id_of, varint

log = structlog.get_logger(__name__)

BYTES_MAX: Final = 64 * 2**20
"""How many bytes of spans are kept at most while nothing takes them; the oldest are dropped."""

PIECE_BYTES: Final = 2**17
"""How many bytes of a file are read at once."""

ADDED_MAX: Final = 1000
"""How many spans are added at most until they are written."""

NONE: Final[Mapping[str, bytes]] = {}


class Batch(msgspec.Struct, frozen=True):
    """So many spans to be exported together, of together `size` bytes: those of a file up to `in_file`, and
    others in memory. The file is deleted with them."""

    count: int
    size: int
    in_file: int = 0
    path: Path | None = None
    descriptor: int | None = None
    in_memory: Sequence[bytes] = ()

    def pieces(self, first: bytes = b"") -> Iterator[bytes | memoryview]:
        """Yield the spans in pieces, after what goes `first`. A piece is overwritten by the next one."""
        if not self.in_file or self.descriptor is None:
            yield b"".join((first, *self.in_memory))
            return
        buffer = memoryview(bytearray(PIECE_BYTES))
        buffer[: len(first)] = first
        at, space = 0, buffer[len(first) :]
        while at < self.in_file:
            length = os.preadv(self.descriptor, [space[: self.in_file - at]], at)
            if not length:
                raise OSError(f"{self.path} was truncated")
            yield buffer[: len(buffer) - len(space) + length]
            at, space = at + length, buffer
        yield from self.in_memory

    def read(self) -> bytes:
        """Return the spans, one after the other."""
        return b"".join([bytes(piece) for piece in self.pieces()])


class SpanStore:
    """The spans of one process of a service, in files of the folder `folder`; safe for threads.

    Where the folder cannot be written, spans are in memory.
    """

    def __init__(self, folder: Path, service: str, *, bytes_max: int = BYTES_MAX) -> None:
        self._folder, self._service = folder, service
        self._bytes_max = bytes_max
        self._lock = Lock()
        self._name = f"{service}-{uuid7()}"
        self._files = 0
        self._added: list[bytes] = []
        self._count = self._in_file = self._in_memory_bytes = 0
        self._in_memory: list[bytes] = []
        self._unfinished: dict[str, bytes] = {}
        self._path: Path | None
        self._descriptor: int | None
        self._is_writable = False
        self._begun: tuple[Path, int] | None = None
        self._waiting: deque[Batch] = deque()
        self._waiting_bytes = 0
        self.dropped = 0
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def add(self, span: bytes) -> None:
        """Keep a span that nothing refers to yet; it is written with the next ones."""
        self._added.append(span)  # Without the lock: appending is one step, and so is taking them.
        if len(self._added) >= ADDED_MAX:
            self.write(b"", 0)

    def write(self, spans: bytes, count: int, unfinished: Mapping[str, bytes] = NONE) -> None:
        """Write so many spans. The `unfinished` ones, each with its name, have begun and will be `finished`;
        they have the tag `UNFINISHED`."""
        with self._lock:
            self._write(spans, count)
            if unfinished:
                self._unfinished.update(unfinished)
                self._note_begun(unfinished.values())
            if self._in_file + self._in_memory_bytes > self._bytes_max // 8:
                self._rotate()

    def finished(self, name: str, span: bytes) -> None:
        """Keep a span that was unfinished."""
        # Without the lock: each is one step. In between the span is in both, which does no harm.
        self._added.append(span)
        self._unfinished.pop(name, None)

    def take(self) -> Batch | None:
        """Return the oldest spans that wait for their export, None if there are none."""
        with self._lock:
            # While nothing takes them, they gather in few files.
            if (self._count or self._added) and not self._waiting:
                self._rotate()
            return self._waiting[0] if self._waiting else None

    def done(self, batch: Batch) -> None:
        """Forget spans that were exported, or that will never be taken."""
        with self._lock:
            if self._waiting and self._waiting[0] is batch:
                self._waiting.popleft()
                self._waiting_bytes -= batch.size
                _delete(batch.path, batch.descriptor)

    def close(self) -> None:
        """Write what is left, and release the files: another process may export them."""
        with self._lock:
            self._write(b"", 0)
            if not self._count:
                _delete(self._path, self._descriptor)
            elif self._descriptor is not None:
                os.close(self._descriptor)
            self._descriptor = None
            if self._begun is not None:
                path, descriptor = self._begun
                _delete(None if self._unfinished else path, descriptor)
                self._begun = None
            for batch in self._waiting:
                if batch.descriptor is not None:
                    os.close(batch.descriptor)
            self._waiting.clear()

    def adopt(self) -> int:
        """Take over what ended processes of this service have left behind; return how many spans."""
        # Those of a process come together, and what it had begun is known when it is looked for what ended.
        paths = [
            *self._folder.glob(f"{self._service}-*.spans"),
            *self._folder.glob(f"{self._service}-*.begun"),
        ]
        claimed = [
            (path, descriptor) for path in sorted(paths) if (descriptor := _claim(path)) is not None
        ]
        contents = {path: list(records(_content(descriptor))) for path, descriptor in claimed}
        ended = {
            span_id_of(content)
            for each in contents.values()
            for tag, content in each
            if tag == SPAN
        }
        found = 0
        for path, descriptor in claimed:
            spans = list(_left_behind(contents[path], ended))
            if not spans:
                _delete(path, descriptor)
                continue
            found += len(spans)
            size = sum(map(len, spans))
            with self._lock:
                self._wait(Batch(len(spans), size, 0, path, descriptor, spans))
        return found

    def _write(self, spans: bytes, count: int) -> None:
        """Write spans, and those that were added meanwhile."""
        added = self._added[:]
        if added:
            del self._added[: len(added)]
            spans = b"".join((*added, spans))
            count += len(added)
        if not spans:
            return
        self._count += count
        if self._is_writable:
            try:
                if os.write(self._descriptor, spans) < len(spans):  # type: ignore[arg-type]
                    raise OSError("only a part could be written")
                self._in_file += len(spans)
            except OSError as error:  # A full disk must not stop orders.
                self._is_writable = False
                log.warning("spans_only_in_memory", path=str(self._path), error=str(error))
            else:
                return
        self._in_memory.append(spans)
        self._in_memory_bytes += len(spans)

    def _note_begun(self, spans: Iterable[bytes]) -> None:
        """Write spans that have begun."""
        try:
            if self._begun is None:
                self._begun = self._create("begun")
            os.write(self._begun[1], b"".join(spans))
        except OSError as error:
            log.warning("spans_only_in_memory", path=str(self._folder), error=str(error))

    def _rotate(self) -> None:
        """Let what is kept wait for its export, and begin other files, with what is unfinished."""
        self._write(b"", 0)
        batch = Batch(
            self._count,
            self._in_file + self._in_memory_bytes,
            self._in_file,
            self._path,
            self._descriptor,
            self._in_memory,
        )
        self._count = self._in_file = self._in_memory_bytes = 0
        self._in_memory = []
        self._open()
        if self._begun is not None:
            begun, self._begun = self._begun, None
            if self._unfinished:
                self._note_begun(list(self._unfinished.values()))  # At once: it changes.
            _delete(*begun)
        self._wait(batch)

    def _wait(self, batch: Batch) -> None:
        self._waiting.append(batch)
        self._waiting_bytes += batch.size
        while self._waiting_bytes > self._bytes_max and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._waiting_bytes -= oldest.size
            self.dropped += oldest.count
            _delete(oldest.path, oldest.descriptor)

    def _open(self) -> None:
        self._files += 1
        self._path, self._descriptor = None, None
        try:
            self._path, self._descriptor = self._create("spans")
        except OSError as error:
            log.warning("spans_only_in_memory", path=str(self._folder), error=str(error))
        self._is_writable = self._descriptor is not None

    def _create(self, kind: str) -> tuple[Path, int]:
        """Create a file for spans of a kind, locked for as long as this process lives."""
        path = self._folder / f"{self._name}-{self._files}.{kind}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o600)
        with suppress(OSError):  # Not every file system has locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, descriptor


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


def _left_behind(found: Iterable[tuple[bytes, bytes]], ended: set[bytes]) -> Iterator[bytes]:
    """Yield the spans of a file whose process has ended; those that it had begun only if they have not ended.
    Then they have."""
    begun: dict[bytes, bytes] = {}
    for tag, content in found:
        if tag == SPAN:
            yield _record(content)
        elif tag == UNFINISHED:
            begun[span_id_of(content)] = content
    for span_id, content in begun.items():
        if span_id not in ended:
            ended.add(span_id)
            yield _record(content)


def _record(content: bytes) -> bytes:
    return SPAN + varint(len(content)) + content


def _delete(path: Path | None, descriptor: int | None) -> None:
    with suppress(OSError):
        if path is not None:
            path.unlink()
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)

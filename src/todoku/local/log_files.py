"""The log files of `up`: one for each program, bounded, and kept when the terminal is closed."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = "logs"
"""Where in the data folder the files are."""

BYTES_MAX: Final = 8 * 2**20
"""How large a file grows; then it becomes the old one, and the old one before it is deleted."""

OLD: Final = ".1"
COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_find_time = re.compile(r"\d{4}[-/]\d{2}[-/]\d{2}[T ]\d{2}:\d{2}:\d{2}[.\d]*").search


class LogFiles:
    """Writes lines of programs into files that only their owner may read.

    A disk that is full, or a folder that cannot be written, stops no program: lines are left out.
    """

    def __init__(self, data_dir: Path, *, bytes_max: int = BYTES_MAX) -> None:
        self._folder = data_dir / FOLDER
        self._bytes_max = bytes_max
        self._descriptors: dict[str, int] = {}

    def write(self, program: str, line: str) -> None:
        """Append a line of a program."""
        data = COLOURS.sub("", line).encode(errors="replace") + b"\n"
        with suppress(OSError):
            descriptor = self._descriptors.get(program) or self._open(program)
            if os.fstat(descriptor).st_size + len(data) > self._bytes_max:
                descriptor = self._rotate(program)
            os.write(descriptor, data)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def _open(self, program: str) -> int:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(self._path(program), flags, 0o600)
        os.fchmod(descriptor, 0o600)
        self._descriptors[program] = descriptor
        return descriptor

    def _rotate(self, program: str) -> int:
        os.close(self._descriptors.pop(program))
        path = self._path(program)
        path.replace(f"{path}{OLD}")
        return self._open(program)

    def _path(self, program: str) -> Path:
        return self._folder / f"{program}.log"


class LogLine(msgspec.Struct, frozen=True):
    """A line of a program, with what follows it without a time of its own, such as a traceback."""

    time: str
    program: str
    text: str


def read_lines(data_dir: Path, programs: Iterable[str]) -> Iterator[LogLine]:
    """Yield the lines of these programs in the order of their times."""
    lines = [line for program in programs for line in _lines_of(data_dir / FOLDER, program)]
    yield from sorted(lines, key=lambda line: line.time)


def about(lines: Iterable[LogLine], key: str) -> Iterator[LogLine]:
    """Yield the lines that have this id, and those of the same traces."""
    lines = list(lines)
    traces = {trace for line in lines if key in line.text for trace in _traces_of(line.text)}
    for line in lines:
        if key in line.text or traces.intersection(_traces_of(line.text)):
            yield line


def _lines_of(folder: Path, program: str) -> Iterator[LogLine]:
    time, texts = "", list[str]()
    for text in _texts_of(folder, program):
        found = _find_time(text[:400])
        if found is None and texts:
            texts.append(text)
            continue
        if texts:
            yield LogLine(time, program, "\n".join(texts))
        time, texts = (found[0].replace(" ", "T").replace("/", "-") if found else ""), [text]
    if texts:
        yield LogLine(time, program, "\n".join(texts))


def _texts_of(folder: Path, program: str) -> Iterator[str]:
    for name in (f"{program}.log{OLD}", f"{program}.log"):
        with suppress(OSError), (folder / name).open(errors="replace") as file:
            for line in file:
                yield line.rstrip("\n")


_find_traces = re.compile(r'trace_id"?\s*[=:]\s*"?([0-9a-f]{32})').findall


def _traces_of(text: str) -> list[str]:
    return _find_traces(text)

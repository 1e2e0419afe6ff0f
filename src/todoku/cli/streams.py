"""Standard streams that work in every terminal: closed ones, and encodings other than UTF-8.

JSON is always UTF-8. In other text, characters that the terminal's encoding lacks are escaped.
"""

import io
import os
import sys
from typing import Any

STDIN, STDOUT, STDERR = 0, 1, 2


def prepare() -> None:
    """Make the standard streams usable; call it before anything opens a file.

    A closed stream is replaced by the null device, since the next file would get its descriptor.
    Errors go to stdout if only stderr is closed.
    """
    closed = [descriptor for descriptor in (STDIN, STDOUT, STDERR) if not _is_open(descriptor)]
    for descriptor in closed:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor, inheritable=True)
            os.close(opened)
        os.set_inheritable(descriptor, True)
    sys.stdin = sys.stdin or open(STDIN, closefd=False)  # noqa: SIM115 - open until the end
    sys.stdout = sys.stdout or open(STDOUT, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or _substitute_for_stderr(closed)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def to_json(value: object) -> bytes:
    """Encode a value as JSON; parts of file names that are not text are escaped."""
    import msgspec  # Only this function needs it, and its import takes a noticeable time.

    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_escaped(msgspec.to_builtins(value)))


def write_json(raw: bytes) -> None:
    """Write a line of JSON to stdout, in UTF-8 whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(raw + b"\n")


def is_text(word: str) -> bool:
    """Return whether an argument is valid in the terminal's encoding."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def discard_output() -> None:
    """Discard what stdout has buffered, which would fail again at exit, and all that follows."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _escaped(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {_escaped(name): _escaped(each) for name, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
        case _:
            return value


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _substitute_for_stderr(closed: list[int]) -> io.TextIOWrapper:
    if STDOUT not in closed:
        os.dup2(STDOUT, STDERR, inheritable=True)
    return open(STDERR, "w", buffering=1, closefd=False)

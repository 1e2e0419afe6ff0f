"""Claims a data folder and ports before a command starts anything."""

import errno
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from todoku.database.errors import DatabaseInUse, DatabaseUnsuitable
from todoku.database.lock import FileLock
from todoku.local.errors import Contradictory, InUse, Unavailable

PATIENCE_SECONDS = 2.0
"""How long the processes of an `up` that was just killed may take to end."""

POLL_SECONDS = 0.05


class Port(msgspec.Struct, frozen=True):
    """A port to listen on, the program that wants it, and the flag that changes it."""

    host: str
    number: int
    wanted_by: str
    flag: str


def make_data_folder(path: Path) -> None:
    """Create the folder if it does not exist. Raises `Unavailable`."""
    _require_utf_8(path)
    try:
        # Orders hold personal data: only the owner may read the folder.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the data folder {path} cannot be created: {error.strerror}."
            " Choose another with --data-dir, or remove what is in its place."
        ) from error


def _require_utf_8(path: Path) -> None:
    """Raise `Unavailable` for a name that the broker cannot read."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError as error:
        raise Unavailable(
            f"the name of the data folder {path} is not UTF-8, so the broker cannot use it."
            " Rename it, or choose another with --data-dir."
        ) from error


@contextmanager
def data_folder(path: Path) -> Iterator[None]:
    """Lock the data folder against every other `up`, for as long as the process lives.

    Raises `Unavailable` if it cannot be created or written, `InUse` if another process holds it.
    """
    make_data_folder(path)
    try:
        lock = FileLock(path / "up.lock", wait_seconds=PATIENCE_SECONDS)
    except DatabaseInUse as error:
        raise InUse(
            f"the data folder {path} is in use by another `todoku up`."
            " Stop that one, or choose another folder with --data-dir (and other ports)."
        ) from error
    except DatabaseUnsuitable as error:
        raise Unavailable(f"the data folder {path} cannot be written. {error}") from error
    try:
        yield
    finally:
        lock.release()


def require_free(ports: Sequence[Port]) -> None:
    """Check that every port can be listened on, and that no two programs want the same one.

    Raises `Contradictory`, or `Unavailable` for the first port that is taken. Nothing is held:
    another process may still take a port afterwards.
    """
    _require_different(ports)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for port in ports:
        refusal = refusal_of(port)
        while refusal and refusal.errno == errno.EADDRINUSE and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            refusal = refusal_of(port)
        if refusal:
            raise Unavailable(_explanation(port, refusal))


def _require_different(ports: Sequence[Port]) -> None:
    number, wanted = Counter(port.number for port in ports).most_common(1)[0]
    if wanted > 1:
        rivals = [port for port in ports if port.number == number]
        raise Contradictory(
            f"port {number} is wanted by {' and '.join(port.wanted_by for port in rivals)}."
            f" Choose another with {' or '.join(port.flag for port in rivals)}."
        )


def refusal_of(port: Port) -> OSError | None:
    """Return why this port cannot be listened on now, None if it can."""
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family) as attempt:
        # As servers do: a connection that ended a minute ago does not block the port.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((port.host, port.number))
        except OSError as error:
            return error
    return None


def _explanation(port: Port, refusal: OSError) -> str:
    if refusal.errno == errno.EADDRINUSE:
        return (
            f"port {port.number}, wanted by {port.wanted_by}, is taken by another program."
            f" Stop that program, or choose another port with {port.flag}."
        )
    return (
        f"{port.wanted_by} cannot listen on {port.host}, port {port.number}:"
        f" {refusal.strerror}. Choose another port with {port.flag}, or address with --host."
    )

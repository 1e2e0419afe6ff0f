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
from todoku.local.privacy import protect
from todoku.local.processes import describe, listener
from todoku.local.running import LOCK_NAME

PATIENCE_SECONDS = 2.0
"""How long the processes of an `up` that was just killed may take to end."""

POLL_SECONDS = 0.05


class Port(msgspec.Struct, frozen=True):
    """A port to listen on, the program that wants it, and the flag that changes it."""

    host: str
    number: int
    wanted_by: str
    flag: str


def make_data_folder(path: Path, databases: Sequence[str] = ()) -> None:
    """Create the folder if it does not exist, and restrict its files to their owner.

    `databases` are the names of the databases in it. Raises `Unavailable`.
    """
    _require_utf_8(path)
    try:
        # Orders hold personal data: only the owner may read the folder.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"the data folder {path} cannot be created: {error.strerror}."
            " Choose another with --data-dir, or remove what is in its place."
        ) from error
    protect(path, databases)


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
def data_folder(path: Path, databases: Sequence[str] = ()) -> Iterator[None]:
    """Lock the data folder against every other `up`, for as long as the process lives.

    `databases` are the names of the databases in it.

    Raises `Unavailable` if it cannot be created or written, `InUse` if another process holds it.
    """
    make_data_folder(path, databases)
    try:
        lock = FileLock(path / LOCK_NAME, wait_seconds=PATIENCE_SECONDS)
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

    Raises `Contradictory`, or `Unavailable` with all ports that are in use. Nothing is held: another
    process may still take a port afterwards.
    """
    _require_different(ports)
    deadline = time.monotonic() + PATIENCE_SECONDS
    refusals = _refusals(ports)
    while time.monotonic() < deadline and _may_pass(refusals):
        time.sleep(POLL_SECONDS)
        refusals = _refusals(ports)
    if refusals:
        explanations = [_explanation(port, refusal) for port, refusal in refusals]
        if len(ports) > 1:
            explanations.append("To move all ports at once, use --port-base.")
        raise Unavailable("\n".join(explanations))


def _refusals(ports: Sequence[Port]) -> list[tuple[Port, OSError]]:
    found = [(port, refusal_of(port)) for port in ports]
    return [(port, refusal) for port, refusal in found if refusal]


def _may_pass(refusals: Sequence[tuple[Port, OSError]]) -> bool:
    return any(refusal.errno == errno.EADDRINUSE for _, refusal in refusals)


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
        user = listener(port.number)
        return (
            f"port {port.number}, wanted by {port.wanted_by}, is in use by"
            f" {describe(user) if user else 'another program'}."
            f" Stop that program, or choose another port with {port.flag}."
        )
    return (
        f"{port.wanted_by} cannot listen on {port.host}, port {port.number}:"
        f" {refusal.strerror}. Choose another port with {port.flag}, or address with --host."
    )

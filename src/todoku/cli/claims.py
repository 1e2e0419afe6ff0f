"""What a command must have to itself before it starts anything: its data folder and its ports."""

import errno
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.database.errors import DatabaseInUse, DatabaseUnsuitable
from todoku.database.lock import FileLock

PATIENCE_SECONDS = 2.0
"""How long the processes of an `up` that was just killed may take to be gone."""

POLL_SECONDS = 0.05


class Port(msgspec.Struct, frozen=True):
    """A port that somebody wants, and the flag by which it is changed."""

    host: str
    number: int
    wanted_by: str
    flag: str


def make_data_folder(path: Path) -> None:
    """Make the folder if it is not there. Raises `CommandFailed`."""
    try:
        # Orders name people: the folder is for its owner only.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(
            f"the data folder {path} cannot be made: {error.strerror}."
            " Choose another with --data-dir, or make way for this one.",
            exit_code=ExitCode.CANNOT_START,
        ) from error


@contextmanager
def data_folder(path: Path) -> Iterator[None]:
    """Hold the data folder against every other `up`, for as long as the process lives.

    Raises `CommandFailed` if it cannot be made or written, or is held by another process.
    """
    make_data_folder(path)
    try:
        lock = FileLock(path / "up.lock", wait_seconds=PATIENCE_SECONDS)
    except DatabaseInUse as error:
        raise CommandFailed(
            f"the data folder {path} is in use by another `todoku up`."
            " Stop that one, or choose another folder with --data-dir (and other ports).",
            exit_code=ExitCode.IN_USE,
        ) from error
    except DatabaseUnsuitable as error:
        raise CommandFailed(
            f"the data folder {path} cannot be written. {error}", exit_code=ExitCode.CANNOT_START
        ) from error
    try:
        yield
    finally:
        lock.release()


def require_free(ports: Sequence[Port]) -> None:
    """Check that every port can be listened on, and is wanted once.

    Raises `CommandFailed` naming the first that is not. Nothing is held: another process may still
    be quicker.
    """
    _require_different(ports)
    deadline = time.monotonic() + PATIENCE_SECONDS
    for port in ports:
        refusal = refusal_of(port)
        while refusal and refusal.errno == errno.EADDRINUSE and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            refusal = refusal_of(port)
        if refusal:
            raise CommandFailed(_explained(port, refusal), exit_code=ExitCode.CANNOT_START)


def _require_different(ports: Sequence[Port]) -> None:
    number, wanted = Counter(port.number for port in ports).most_common(1)[0]
    if wanted > 1:
        rivals = [port for port in ports if port.number == number]
        raise CommandFailed(
            f"port {number} is wanted by {' and '.join(port.wanted_by for port in rivals)}."
            f" Choose another with {' or '.join(port.flag for port in rivals)}.",
            exit_code=ExitCode.USAGE,
        )


def refusal_of(port: Port) -> OSError | None:
    """Why this port cannot be listened on now."""
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    with socket.socket(family) as attempt:
        # As servers do: connections that ended a minute ago are no obstacle.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((port.host, port.number))
        except OSError as error:
            return error
    return None


def _explained(port: Port, refusal: OSError) -> str:
    if refusal.errno == errno.EADDRINUSE:
        return (
            f"port {port.number}, wanted by {port.wanted_by}, is taken by another program."
            f" Stop that program, or choose another port with {port.flag}."
        )
    return (
        f"{port.wanted_by} cannot listen on {port.host}, port {port.number}:"
        f" {refusal.strerror}. Choose another port with {port.flag}, or address with --host."
    )

"""Tells other commands with which settings the running `todoku up` of a data folder runs."""

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec

LOCK_NAME = "up.lock"


class RunningUp(msgspec.Struct, frozen=True, rename="camel"):
    """A running `todoku up`: its process, its version, and its settings without secrets.

    `settings` are the values by name as they are written in a variable, `origins` their sources.
    """

    pid: int
    version: str
    settings: dict[str, str | None]
    origins: dict[str, str]


def publish(folder: Path, running: RunningUp) -> None:
    """Write the settings into the lock file, which this process holds."""
    _write(folder, msgspec.json.encode(running) + b"\n")


def withdraw(folder: Path) -> None:
    """Empty the lock file."""
    _write(folder, b"")


def find(folder: Path) -> RunningUp | None:
    """Return the running `todoku up` of a data folder, None if there is none or it tells nothing."""
    try:
        descriptor = os.open(folder / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # It is held, so `up` runs.
            return _decoded(file.read())
    return None


def _write(folder: Path, content: bytes) -> None:
    # Only diagnosis needs the content: a full disk is no reason to stop here.
    with contextlib.suppress(OSError):
        (folder / LOCK_NAME).write_bytes(content)


def _decoded(content: bytes) -> RunningUp | None:
    try:
        return msgspec.json.decode(content, type=RunningUp)
    except msgspec.DecodeError:
        return None  # It is being written, or was written by another version.

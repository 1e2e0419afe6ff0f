"""Finds out about processes of this machine. Outside of Linux nothing is known about them."""

import os
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # include/net/tcp_states.h
STOPPED_STATES = ("T", "t")


def describe(pid: int) -> str:
    """Return a process as text: `process 4711 (todoku run orders)`."""
    words = command(pid)
    if not words:
        return f"process {pid}"
    return f"process {pid} ({_escaped(' '.join([Path(words[0]).name, *words[1:]]).strip())})"


def _escaped(text: str) -> str:
    """Write what is not printable as in Python: a command line holds what its user likes."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def command(pid: int) -> list[str]:
    """Return the command line of a process, empty if it is unknown."""
    try:
        text = (PROC / str(pid) / "cmdline").read_text(errors="backslashreplace")
    except OSError:
        return []
    words = text.rstrip("\0")
    return words.split("\0") if words else []


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped, for example by SIGSTOP."""
    try:
        state = (PROC / str(pid) / "stat").read_text(errors="backslashreplace")
    except OSError:
        return False
    # The name in parentheses may hold anything.
    return state.rpartition(") ")[2][:1] in STOPPED_STATES


def listener(port: int) -> int | None:
    """Return the process that listens on a TCP port, None if none is found.

    Processes of other users can be seen by root only.
    """
    inodes = {f"socket:[{inode}]" for inode in _listening_sockets(port)}
    if not inodes:
        return None
    for folder in PROC.glob("[0-9]*"):
        if any(_target(file) in inodes for file in _files(folder)):
            return int(folder.name)
    return None


def _listening_sockets(port: int) -> list[str]:
    found = []
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        # sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt   uid timeout inode
        rows = [line.split() for line in lines]
        found += [row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == LISTENING]
    return found


def _files(folder: Path) -> list[Path]:
    try:
        return list((folder / "fd").iterdir())
    except OSError:
        return []


def _target(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:
        return ""

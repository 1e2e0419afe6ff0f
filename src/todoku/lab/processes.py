"""Reads from Linux's `/proc` which processes `todoku up` has started and what they have used."""

import os
import sys
from pathlib import Path

import msgspec

from todoku.broker import embedded
from todoku.system import system

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

BROKER = "broker"
PROGRAMS: tuple[str, ...] = (*system.names, BROKER)
"""The programs that `todoku up` runs for the built-in services."""


class Usage(msgspec.Struct, frozen=True):
    """What a process has used since its start: CPU time in user and system mode, bytes written to
    disk, and its peak memory."""

    cpu_seconds: float
    written_bytes: int
    memory_bytes_max: int


def usage_of(pid: int) -> Usage:
    """Return what a process has used so far. Raises `OSError` if that is unknown."""
    folder = Path(f"/proc/{pid}")
    # The name, in parentheses, may contain anything; the fields after it are numbers (proc(5)).
    after_name = (folder / "stat").read_text().rpartition(")")[2].split()
    return Usage(
        cpu_seconds=(int(after_name[11]) + int(after_name[12])) / TICKS_A_SECOND,
        written_bytes=_field(folder / "io", "write_bytes"),
        memory_bytes_max=_field(folder / "status", "VmHWM") * 1024,
    )


def resident_bytes(pid: int) -> int:
    """Return how much memory a process occupies now."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def busy_seconds() -> float:
    """Return the CPU time of all cores since the machine started that was not idle.

    Time that the hypervisor gave to another machine counts as busy. Raises `OSError` if unknown.
    """
    # cpu  user nice system idle iowait irq softirq steal guest guest_nice (proc(5))
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_A_SECOND


def programs_of(up: int) -> dict[str, int]:
    """Return the process of each program that a `todoku up` has running; empty outside of Linux."""
    if sys.platform != "linux":
        return {}
    named = [(_program(pid), pid) for pid in _children(up)]
    found = {name: pid for name, pid in named if name is not None}
    return dict(sorted(found.items(), key=lambda program: program[0] == BROKER))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _program(pid: int) -> str | None:
    """Return which program a process is; None before it has become one and after its end."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    except OSError:
        return None
    if words and Path(words[0]).name == embedded.PROGRAM:
        return BROKER
    return words[-1] if words[1:-1] == ["-P", "-m", "todoku", "run"] else None


def _field(file: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(lines[name].split()[0])

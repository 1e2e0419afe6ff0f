"""What a process has cost, as Linux tells in `/proc`; elsewhere nothing is known."""

import os
from pathlib import Path

import msgspec

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Spent(msgspec.Struct, frozen=True):
    """What a process has used since its start: CPU time in user and system mode, bytes that it had
    written to the disk, and the most memory that it ever had."""

    cpu_seconds: float
    written_bytes: int
    memory_bytes_max: int


def spent(pid: int) -> Spent:
    """What a process has used so far. Raises `OSError` where that is not known."""
    folder = Path(f"/proc/{pid}")
    # The name, in parentheses, may hold anything; what follows it are numbers (proc(5)).
    after_name = (folder / "stat").read_text().rpartition(")")[2].split()
    return Spent(
        cpu_seconds=(int(after_name[11]) + int(after_name[12])) / TICKS_A_SECOND,
        written_bytes=_field(folder / "io", "write_bytes"),
        memory_bytes_max=_field(folder / "status", "VmHWM") * 1024,
    )


def _field(file: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in file.read_text().splitlines())
    return int(lines[name].split()[0])


def busy_seconds() -> float:
    """The CPU time that was not idle since the start of this machine, all cores together; what
    another machine took away from this one counts too. Raises `OSError` where that is not known."""
    # cpu  user nice system idle iowait irq softirq steal guest guest_nice (proc(5))
    ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_A_SECOND


def children(pid: int) -> dict[str, int]:
    """The processes that `todoku up` has started: the broker and the services, by name."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")[:-1]
        found["broker" if "nats-server" in words[0] else words[-1]] = int(child)
    return found

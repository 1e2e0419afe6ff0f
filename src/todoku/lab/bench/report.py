"""What a load has shown, as figures."""

import math
from collections.abc import Iterable, Mapping

import msgspec


class Latency(msgspec.Struct, frozen=True, rename="camel"):
    """How long something took, in milliseconds; `count` is how often it was seen."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Latency | None":
        """The figures of these durations, None if there are none."""
        ordered = sorted(1_000 * each for each in seconds)
        if not ordered:
            return None
        p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
        return cls(len(ordered), p50, p95, p99, ordered[-1])


def percentile(ordered: list[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Cost(msgspec.Struct, frozen=True, rename="camel"):
    """What a process costs: an order's CPU in milliseconds, commits, fsyncs and bytes written to the
    disk; and the most memory that it ever had. None is not counted."""

    cpu_ms: float
    commits: float | None
    fsyncs: float | None
    written_bytes: float
    memory_bytes_max: int


class Traffic(msgspec.Struct, frozen=True, rename="camel"):
    """What an order costs in the stream: messages, and their bytes on the broker's disk. `repeated`
    counts the events that were sent more than once, in all."""

    messages: float
    bytes: float | None
    repeated: int


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a load has shown.

    `seconds` is from the first order to the last that ended. `post` is how long the answers took;
    `ended` how long it took until orders had ended, all of them, by the clock of the orders service
    (when it decided so, which is a commit before it could be seen); `seen` the same for those that
    were watched by asking. In open loop all are from when the order was due. `other_cores` is how
    many cores of the machine were taken by anything else meanwhile, where that is known. `stages`
    are the CPU milliseconds an order of each stage in each service, if they were watched.
    """

    loop: str
    ready_seconds: float | None
    seconds: float
    accepted: int
    refused: Mapping[int, int]
    endings: Mapping[str, int]
    unfinished: int
    accepted_a_second: float
    ended_a_second: float
    post: Latency | None
    ended: Latency | None
    seen: Latency | None
    costs: Mapping[str, Cost]
    traffic: Traffic
    other_cores: float | None
    stages: Mapping[str, Mapping[str, float]] = {}
    broken: tuple[str, ...] | None = None

    @property
    def cpu_ms(self) -> float:
        """The CPU of all processes together, in milliseconds an order."""
        return sum(cost.cpu_ms for cost in self.costs.values())

    @property
    def good(self) -> bool:
        """Whether every accepted order has ended, and nothing is broken."""
        return self.accepted > 0 and self.unfinished == 0 and not self.broken

"""Figures of a measurement."""

import math
from collections.abc import Iterable, Mapping

import msgspec


class Latency(msgspec.Struct, frozen=True, rename="camel"):
    """Percentiles of a duration in milliseconds, over `count` samples."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> "Latency | None":
        """Return the percentiles of these durations, None if there are none."""
        ordered = sorted(1_000 * each for each in seconds)
        if not ordered:
            return None
        p50, p95, p99 = (percentile(ordered, share) for share in (0.50, 0.95, 0.99))
        return cls(len(ordered), p50, p95, p99, ordered[-1])


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least this share of values does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Cost(msgspec.Struct, frozen=True, rename="camel"):
    """The cost of one order in a process: CPU milliseconds, commits, fsyncs and bytes written to
    disk; and the peak memory of the process. None means not counted."""

    cpu_ms: float
    commits: float | None
    fsyncs: float | None
    written_bytes: float
    memory_bytes_max: int


class Traffic(msgspec.Struct, frozen=True, rename="camel"):
    """The messages of one order in the stream, and their bytes on the broker's disk. `repeated` is
    the total of events that were published again."""

    messages: float
    bytes: float | None
    repeated: int


class BenchReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The figures of one load.

    `seconds` is from the first order to the last one that ended. `post` is the latency of `POST
    /orders`; `ended` the time until an order ended, of all orders, by the clock of the orders service
    (when it decided, one commit before a client can see it); `seen` the same for the orders that were
    polled. In open loop all three start when the order was due. `other_cores` is how many cores other
    programs used meanwhile, if known. `stages` are the CPU milliseconds an order of each stage in
    each service, if profiled. `broken` lists violated invariants, None if they were not checked.
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
        """The CPU milliseconds an order of all processes together."""
        return sum(cost.cpu_ms for cost in self.costs.values())

    @property
    def good(self) -> bool:
        """Whether every accepted order has ended, and no invariant is broken."""
        return self.accepted > 0 and self.unfinished == 0 and not self.broken

"""Snapshots of what a system has used, and the difference between two."""

import asyncio
import time
from collections.abc import Mapping

import msgspec

from todoku.broker.connection import connection_options
from todoku.broker.embedded import PROBE_SUBJECT
from todoku.broker.permissions import OPERATOR
from todoku.lab.bench.instruments import Instruments
from todoku.lab.processes import Usage, busy_seconds, usage_of
from todoku.lab.replica import Replica
from todoku.lab.system_client import SystemClient
from todoku.settings import Settings
from todoku.system import load_system

RECONNECT_SECONDS = 0.2

LOOKS_MAX = 50
"""How often to look for a moment in which nothing is written."""


class StreamState(msgspec.Struct, frozen=True):
    """The state of the stream, as JetStream reports it. `probes` are messages of `todoku up` itself."""

    last_seq: int
    messages: int
    bytes: int
    probes: int


class Snapshot(msgspec.Struct, frozen=True):
    """Everything used so far, at one moment; `busy_seconds` and `stream` are None if unknown."""

    at: float
    own_seconds: float
    busy_seconds: float | None
    usage: Mapping[str, Usage]
    fsyncs: Mapping[str, int]
    metrics: Mapping[str, Mapping[str, float]]
    stream: StreamState | None


class Difference(msgspec.Struct, frozen=True):
    """What was used between two snapshots."""

    before: Snapshot
    after: Snapshot

    @property
    def seconds(self) -> float:
        """The time between them."""
        return self.after.at - self.before.at

    def metric(self, service: str, name: str) -> float:
        """Return by how much a counter of a service has grown."""
        return self.after.metrics[service][name] - self.before.metrics[service][name]

    def metric_of_all(self, name: str) -> float:
        """Return by how much a counter has grown, in all services together."""
        return sum(self.metric(service, name) for service in self.after.metrics)

    def cpu_seconds(self, program: str) -> float:
        """Return the CPU time of a program."""
        return self.after.usage[program].cpu_seconds - self.before.usage[program].cpu_seconds

    def written_bytes(self, program: str) -> int:
        """Return how many bytes a program has written to disk."""
        return self.after.usage[program].written_bytes - self.before.usage[program].written_bytes

    def fsyncs(self, program: str) -> int | None:
        """Return how many fsyncs a program has made, None if they are not counted."""
        if program not in self.after.fsyncs:
            return None
        return self.after.fsyncs[program] - self.before.fsyncs[program]

    def stream_messages(self) -> int | None:
        """Return how many events were stored in the stream, None if unknown."""
        before, after = self.before.stream, self.after.stream
        if before is None or after is None:
            return None
        return after.last_seq - before.last_seq - (after.probes - before.probes)

    def other_cores(self, load_seconds: float) -> float | None:
        """Return how many cores other programs used; the load generator used `load_seconds`."""
        if self.before.busy_seconds is None or self.after.busy_seconds is None:
            return None
        own = load_seconds + self.after.own_seconds - self.before.own_seconds
        own += sum(self.cpu_seconds(program) for program in self.before.usage)
        busy = self.after.busy_seconds - self.before.busy_seconds
        return max(0.0, busy - own) / self.seconds


def take_snapshot(
    settings: Settings,
    client: SystemClient,
    pids: Mapping[str, int],
    instruments: Instruments,
    replicas: Mapping[str, Replica],
) -> Snapshot:
    """Take a snapshot; `pids` are the processes of the system on this machine, by name.

    Fsyncs and commits are counted in different places: they are read again until nothing was written
    between the two.
    """
    for _ in range(LOOKS_MAX):
        fsyncs = instruments.fsyncs(settings.data_dir)
        metrics = {
            **{name: client.metrics(name) for name in load_system(settings).names},
            **{name: replica.metrics() for name, replica in replicas.items()},
        }
        if instruments.fsyncs(settings.data_dir) == fsyncs:
            break
    return Snapshot(
        at=time.monotonic(),
        own_seconds=time.process_time(),
        busy_seconds=busy_seconds() if pids else None,
        usage={name: usage_of(pid) for name, pid in pids.items()},
        fsyncs=fsyncs,
        metrics=metrics,
        stream=asyncio.run(_stream_state(settings)),
    )


async def _stream_state(settings: Settings) -> StreamState | None:
    import nats
    from nats.errors import Error

    async def ignore(_: Exception) -> None:
        """Ignore errors of the connection: without an answer the state is unknown."""

    prefix = f"{settings.subject_prefix}." if settings.subject_prefix else ""
    try:
        connection = await nats.connect(
            settings.broker_url.split(","),
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=RECONNECT_SECONDS,
            error_cb=ignore,
            **connection_options(settings, OPERATOR),
        )
        try:
            info = await connection.jetstream().stream_info(
                settings.stream_name, subjects_filter=f"{prefix}{PROBE_SUBJECT}"
            )
        finally:
            await connection.close()
    except (Error, OSError, TimeoutError):
        return None
    state = info.state
    probes = sum((state.subjects or {}).values())
    return StreamState(state.last_seq, state.messages, state.bytes, probes)

"""Measures one load: create products, place orders, wait for the last one to end, compute figures."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from todoku.lab.bench.instruments import NO_INSTRUMENTS, Instruments
from todoku.lab.bench.load import LoadPlan, LoadResult, Progress
from todoku.lab.bench.options import BenchOptions
from todoku.lab.bench.orders import STOCK, bodies, product_ids, read_endings
from todoku.lab.bench.report import BenchReport, Cost, Latency, Traffic
from todoku.lab.bench.snapshot import Difference, take_snapshot
from todoku.lab.replica import Replica
from todoku.lab.system_client import OrderState, SystemClient
from todoku.orders.domain import OrderStatus
from todoku.settings import Settings

ERROR_CHARACTERS_MAX = 2_000
BODIES = 5_000


class Measurement(msgspec.Struct, frozen=True):
    """A report, and the data behind its figures."""

    report: BenchReport
    load: LoadResult
    ended: list[tuple[float, float]]
    """When each order ended, and how long after it was sent: in seconds from the start of the load."""


class LoadFailed(Exception):
    """The load generator failed, or no order was accepted. The message says why."""


def measure(
    options: BenchOptions,
    settings: Settings,
    *,
    pids: Mapping[str, int],
    folder: Path,
    on_progress: Callable[[Progress], None],
    instruments: Instruments = NO_INSTRUMENTS,
    ready_seconds: float | None = None,
    credential: str | None = None,
    replicas: Mapping[str, Replica] | None = None,
) -> Measurement:
    """Put a load on the running system that the settings describe.

    `pids` are its processes on this machine, by name; `replicas` those beside one of each service. The
    result of the load generator is written to `folder`. `credential` is as in `SystemClient`. Raises
    `HttpFailed` and `LoadFailed`.
    """
    client = SystemClient(settings, credential=credential)
    client.await_credential()
    client.add_products(dict.fromkeys(product_ids(options.products), STOCK))
    replicas = replicas or {}
    pids = {**pids, **{name: replica.pid for name, replica in replicas.items()}}
    before = take_snapshot(settings, client, pids, instruments, replicas)
    instruments.begin(pids)
    plan = _plan(options, settings, folder, client.credential, replicas)
    load = _run_load(plan, on_progress)
    if not load.ids:
        raise LoadFailed(f"no order was accepted: {_in_words(load.refused)}")
    states, after = read_endings(
        client,
        load.ids,
        patience_seconds=options.patience_seconds,
        when_last_ended=lambda: take_snapshot(settings, client, pids, instruments, replicas),
    )
    used = Difference(before, after)
    ended = _ended(load, states)
    report = BenchReport(
        loop=options.loop,
        ready_seconds=ready_seconds,
        **_figures(load, states, ended),
        costs=_costs(load, used),
        other_cores=used.other_cores(load.process_seconds),
        traffic=_traffic(len(load.ids), used),
    )
    return Measurement(report, load, ended)


def _plan(
    options: BenchOptions,
    settings: Settings,
    folder: Path,
    credential: str | None,
    replicas: Mapping[str, Replica],
) -> LoadPlan:
    return LoadPlan(
        host=settings.own_host,
        port=settings.port("orders"),
        connections=options.connections,
        rate=options.rate,
        seconds=options.seconds,
        orders=options.orders,
        bodies=tuple(bodies(options, BODIES)),
        terminal=tuple(status for status in OrderStatus if status.terminal),
        credential=credential,
        more_ports=tuple(each.port for each in replicas.values() if each.service == "orders"),
        result=str(folder / "load.msgpack"),
    )


def _run_load(plan: LoadPlan, on_progress: Callable[[Progress], None]) -> LoadResult:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "todoku.lab.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as generator:
        assert generator.stdin is not None
        assert generator.stdout is not None
        assert generator.stderr is not None
        try:
            generator.stdin.write(msgspec.json.encode(plan))
            generator.stdin.close()
            for line in generator.stdout:
                on_progress(msgspec.json.decode(line, type=Progress))
            errors = generator.stderr.read().decode(errors="replace")
        except BaseException:
            generator.kill()
            raise
    if generator.returncode != 0:
        raise LoadFailed(f"the load generator failed:\n{errors[-ERROR_CHARACTERS_MAX:]}")
    return msgspec.msgpack.decode(Path(plan.result).read_bytes(), type=LoadResult)


def _ended(load: LoadResult, states: Mapping[str, OrderState]) -> list[tuple[float, float]]:
    ended = []
    for order_id, sent in zip(load.ids, load.sent, strict=True):
        state = states.get(order_id)
        if state is not None and state.ended:
            at = state.updated_at.timestamp() - load.started_at
            ended.append((at, at - sent))
    return ended


def _figures(
    load: LoadResult, states: Mapping[str, OrderState], ended: list[tuple[float, float]]
) -> dict[str, Any]:
    answered_last = max(at + took for at, took in zip(load.sent, load.answered, strict=True))
    seconds = max((at for at, _ in ended), default=answered_last)
    return {
        "seconds": seconds,
        "accepted": len(load.ids),
        "refused": load.refused,
        "endings": dict(sorted(Counter(each.status.value for each in states.values()).items())),
        "unfinished": len(load.ids) - len(ended),
        "accepted_a_second": len(load.ids) / answered_last,
        "ended_a_second": len(ended) / seconds,
        "post": Latency.of(load.answered),
        "ended": Latency.of(took for _, took in ended),
        "seen": Latency.of(took for _, took in load.watched),
    }


def _costs(load: LoadResult, used: Difference) -> dict[str, Cost]:
    orders = len(load.ids)
    costs = {name: _cost(name, orders, used) for name in used.before.usage}
    costs["client"] = Cost(
        cpu_ms=1_000 * load.cpu_seconds / orders,
        commits=None,
        fsyncs=None,
        written_bytes=0.0,
        memory_bytes_max=load.memory_bytes_max,
    )
    return costs


def _cost(program: str, orders: int, used: Difference) -> Cost:
    fsyncs = used.fsyncs(program)
    commits = (
        used.metric(program, "todoku_batches_total") if program in used.after.metrics else None
    )
    return Cost(
        cpu_ms=1_000 * used.cpu_seconds(program) / orders,
        commits=None if commits is None else commits / orders,
        fsyncs=None if fsyncs is None else fsyncs / orders,
        written_bytes=used.written_bytes(program) / orders,
        memory_bytes_max=used.after.usage[program].memory_bytes_max,
    )


def _traffic(orders: int, used: Difference) -> Traffic:
    stored = used.stream_messages()
    messages = used.metric_of_all("todoku_events_sent_total") if stored is None else stored
    stream = used.after.stream
    # The stream may have dropped its oldest messages: the rest gives the average size.
    size = stream.bytes / stream.messages if stream and stream.messages else None
    return Traffic(
        messages=messages / orders,
        bytes=size and size * messages / orders,
        repeated=int(used.metric_of_all("todoku_events_repeated_total")),
    )


def _in_words(refused: Mapping[int, int]) -> str:
    return ", ".join(
        f"{count} responses {status}" if status else f"{count} without a response"
        for status, count in refused.items()
    )

"""One bench: set up the products, make the load, wait for the last order, and add up."""

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from todoku.lab.bench import stages
from todoku.lab.bench.load import Load, Plan, Progress
from todoku.lab.bench.processes import Spent, busy_seconds, spent
from todoku.lab.bench.report import Cost, Latency, Report, Traffic
from todoku.lab.bench.services import Ending, Services, endings
from todoku.orders.domain import OrderStatus
from todoku.settings import Settings
from todoku.system import load_system

LAST_WORDS = 2_000
BODIES = 5_000
USERS = 1_000
PRICE = 100
SEED = 20_260_105
"""The same orders in every bench, so that two can be compared."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What load is wanted; `items` different products an order, of `products` that there are, one of
    them in every order if it is `hot`. Without a `rate` it is a closed loop."""

    connections: int
    rate: float | None
    seconds: float | None
    orders: int | None
    items: int
    products: int
    hot: bool
    stages: bool
    patience_seconds: float

    @property
    def loop(self) -> str:
        """The kind of load, in words."""
        pace = f"open loop, {self.rate:g} orders a second" if self.rate else "closed loop"
        hot = ", one of them in every order" if self.hot else ""
        return (
            f"{pace}, {self.connections} connections, "
            f"{self.items} items an order of {self.products} products{hot}"
        )


class Measured(msgspec.Struct, frozen=True):
    """The report, and what its figures were made of."""

    report: Report
    load: Load
    ended: list[tuple[float, float]]
    """When orders had ended, and how long that took: in seconds, from the start of the load."""


class _Standing(msgspec.Struct, frozen=True):
    """How everything stands at one moment; `busy_seconds` is None where that is not known."""

    at: float
    own_seconds: float
    busy_seconds: float | None
    spent: Mapping[str, Spent]
    fsyncs: Mapping[str, int]
    counted: Mapping[str, Mapping[str, float]]
    stream: "_StreamState | None"


class _StreamState(msgspec.Struct, frozen=True):
    last_seq: int
    messages: int
    bytes: int


class ClientFailed(Exception):
    """The process that places the orders has failed. The message says how."""


def measure(
    wanted: Wanted,
    settings: Settings,
    *,
    pids: Mapping[str, int],
    folder: Path,
    told: Callable[[Progress], None],
    fsyncs: Callable[[], Mapping[str, int]] = dict,
    ready_seconds: float | None = None,
) -> Measured:
    """Put the load on the system that is where the settings say.

    `pids` are its processes, by name, as far as they are on this machine, and `fsyncs` says how many
    each of them has made, if that is counted. `told` hears how far the load is. Raises
    `ServiceRefused` and `ClientFailed`.
    """

    def standing() -> _Standing:
        return _standing(settings, services, pids, fsyncs)

    services = Services(settings)
    products = [f"bench-{n:04}" for n in range(wanted.products)]
    services.stock_up(products)
    before = standing()
    if wanted.stages:
        stages.begin(pids)
    load = _place_orders(_plan(wanted, settings, products, folder), told)
    if not load.ids:
        raise ClientFailed(f"no order was accepted: {_in_words(load.refused)}")
    found, after = endings(
        services,
        load.ids,
        patience_seconds=wanted.patience_seconds,
        when_last_ended=standing,
    )
    ended = _ended(load, found)
    return Measured(
        Report(
            loop=wanted.loop,
            ready_seconds=ready_seconds,
            **_figures(load, found, ended),
            costs=_costs(load, before, after),
            other_cores=_other_cores(load, before, after),
            traffic=_traffic(len(load.ids), before, after),
        ),
        load,
        ended,
    )


def _plan(wanted: Wanted, settings: Settings, products: list[str], folder: Path) -> Plan:
    random = Random(SEED)
    return Plan(
        host=settings.own_host,
        port=settings.port("orders"),
        connections=wanted.connections,
        rate=wanted.rate,
        seconds=wanted.seconds,
        orders=wanted.orders,
        bodies=tuple(_body(random, wanted, products) for _ in range(BODIES)),
        terminal=tuple(status for status in OrderStatus if status.terminal),
        result=str(folder / "load.msgpack"),
    )


def _body(random: Random, wanted: Wanted, products: list[str]) -> str:
    hot = products[:1] if wanted.hot else []
    chosen = hot + random.sample(products[len(hot) :], wanted.items - len(hot))
    order = {
        "userId": f"bench-user-{random.randrange(USERS)}",
        "items": [{"productId": each, "quantity": 1, "price": PRICE} for each in chosen],
        "shippingAddress": "1-1 Chiyoda, Tokyo",
    }
    return msgspec.json.encode(order).decode()


def _place_orders(plan: Plan, told: Callable[[Progress], None]) -> Load:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "todoku.lab.bench.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        assert client.stderr is not None
        try:
            client.stdin.write(msgspec.json.encode(plan))
            client.stdin.close()
            for line in client.stdout:
                told(msgspec.json.decode(line, type=Progress))
            said = client.stderr.read().decode(errors="replace")
        except BaseException:
            client.kill()
            raise
    if client.returncode != 0:
        raise ClientFailed(f"the client failed:\n{said[-LAST_WORDS:]}")
    return msgspec.msgpack.decode(Path(plan.result).read_bytes(), type=Load)


def _standing(
    settings: Settings,
    services: Services,
    pids: Mapping[str, int],
    fsyncs: Callable[[], Mapping[str, int]],
) -> _Standing:
    return _Standing(
        at=time.monotonic(),
        own_seconds=time.process_time(),
        busy_seconds=busy_seconds() if pids else None,
        spent={name: spent(pid) for name, pid in pids.items()},
        fsyncs=fsyncs(),
        counted={name: services.counted(name) for name in load_system(settings).names},
        stream=asyncio.run(_stream_state(settings)),
    )


async def _stream_state(settings: Settings) -> _StreamState | None:
    """What the stream holds; None if the broker does not say."""
    import nats
    from nats.errors import Error

    async def pass_over(_: Exception) -> None:
        """That it does not answer is all there is to say."""

    try:
        client = await nats.connect(
            settings.broker_url.split(","),
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.2,
            error_cb=pass_over,
        )
        try:
            info = await client.jetstream().stream_info(settings.stream_name)
        finally:
            await client.close()
    except (Error, OSError, TimeoutError):
        return None
    return _StreamState(info.state.last_seq, info.state.messages, info.state.bytes)


def _ended(load: Load, found: Mapping[str, Ending]) -> list[tuple[float, float]]:
    ended = []
    for order_id, sent in zip(load.ids, load.sent, strict=True):
        ending = found.get(order_id)
        if ending is not None and ending.status.terminal:
            at = ending.updated_at.timestamp() - load.started_at
            ended.append((at, at - sent))
    return ended


def _figures(
    load: Load, found: Mapping[str, Ending], ended: list[tuple[float, float]]
) -> dict[str, Any]:
    answered_last = max(at + took for at, took in zip(load.sent, load.answered, strict=True))
    seconds = max((at for at, _ in ended), default=answered_last)
    return {
        "seconds": seconds,
        "accepted": len(load.ids),
        "refused": load.refused,
        "endings": dict(sorted(Counter(e.status.value for e in found.values()).items())),
        "unfinished": len(load.ids) - len(ended),
        "accepted_a_second": len(load.ids) / answered_last,
        "ended_a_second": len(ended) / seconds,
        "post": Latency.of(load.answered),
        "ended": Latency.of(took for _, took in ended),
        "seen": Latency.of(took for _, took in load.watched),
    }


def _costs(load: Load, before: _Standing, after: _Standing) -> dict[str, Cost]:
    orders = len(load.ids)
    costs = {}
    for name, then in before.spent.items():
        now = after.spent[name]
        costs[name] = Cost(
            cpu_ms=1_000 * (now.cpu_seconds - then.cpu_seconds) / orders,
            commits=_more(before, after, name, "todoku_batches_total") / orders
            if name in before.counted
            else None,
            fsyncs=(after.fsyncs[name] - before.fsyncs[name]) / orders
            if name in after.fsyncs
            else None,
            written_bytes=(now.written_bytes - then.written_bytes) / orders,
            memory_bytes_max=now.memory_bytes_max,
        )
    costs["client"] = Cost(
        cpu_ms=1_000 * load.cpu_seconds / orders,
        commits=None,
        fsyncs=None,
        written_bytes=0.0,
        memory_bytes_max=load.memory_bytes_max,
    )
    return costs


def _other_cores(load: Load, before: _Standing, after: _Standing) -> float | None:
    if before.busy_seconds is None or after.busy_seconds is None:
        return None
    ours = load.process_seconds + after.own_seconds - before.own_seconds
    ours += sum(
        after.spent[name].cpu_seconds - then.cpu_seconds for name, then in before.spent.items()
    )
    return max(0.0, after.busy_seconds - before.busy_seconds - ours) / (after.at - before.at)


def _traffic(orders: int, before: _Standing, after: _Standing) -> Traffic:
    sent = sum(_more(before, after, name, "todoku_events_sent_total") for name in after.counted)
    repeated = sum(
        _more(before, after, name, "todoku_events_repeated_total") for name in after.counted
    )
    stream, messages = after.stream, sent
    if before.stream and stream:
        messages = stream.last_seq - before.stream.last_seq
    # The stream may have dropped its oldest: what is left says how large a message is.
    size = stream.bytes / stream.messages if stream and stream.messages else None
    return Traffic(
        messages=messages / orders,
        bytes=size and size * messages / orders,
        repeated=int(repeated),
    )


def _more(before: _Standing, after: _Standing, service: str, counter: str) -> float:
    return after.counted[service][counter] - before.counted[service][counter]


def _in_words(refused: Mapping[int, int]) -> str:
    return ", ".join(f"{count} answers {status or 'missing'}" for status, count in refused.items())

"""Prove that nothing is lost at scale: place orders while each part of a large system breaks.

Three replicas of each service behind HAProxy, three NATS servers, PostgreSQL with a standby. Each service is
rolled from the last release to this source, and once more to divide what it reads in partitions; a replica of
each is killed and frozen, the stream's leader is killed, PostgreSQL is restarted, and fails over. With root;
needs Debian's haproxy and postgresql.

make scale ARGS="--orders 10000 --rate 100"
make scale ARGS="--beside 60"    # two releases beside each other for an hour, and nothing else
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psycopg

sys.path.insert(0, str(Path(__file__).parents[1]))

from conformance.brokers import NatsCluster
from faults.postgres import BIN, PostgreSQL, postgresql, standby_of
from repeating import repeating
from scale.replicas import HAPROXY, balancer, source_of_the_last_release
from todoku.broker.partitions import NUMBERS
from todoku.lab.chaos import OrderLoad, judge, prepare_products
from todoku.lab.chaos.load import Outcome
from todoku.lab.databases import audit_all
from todoku.lab.http import Response
from todoku.lab.replica import Replica, until
from todoku.lab.stack import TODOKU, Stack, free_ports, isolated_settings
from todoku.orders.domain import OrderStatus
from todoku.settings import Settings, to_environment
from todoku.system import system

EACH = 3
ANSWER_SECONDS_MAX = 5.0
FROZEN_SECONDS = 20.0
STALL_SECONDS_MAX = 10.0
SETTLE_SECONDS = 120.0
PROBLEMS_SHOWN = 20
BAD_GATEWAY = 502
ENDED = b"SELECT count(*) FROM orders WHERE status = ANY (%s)"
TERMINAL = [status.value for status in OrderStatus if status.terminal]
KNOWN_BY_THE_LAST_RELEASE = (
    *("TODOKU_DATA_DIR", "TODOKU_HOST", "TODOKU_NATS_URL", "TODOKU_LOG_FORMAT"),
    "TODOKU_CARRIER_DELAY_SECONDS",
)


class BalancedLoad(OrderLoad):
    """Customers behind a balancer. What it answers for a dead service says nothing about the order."""

    gateway_errors = 0

    def _read(self, response: Response) -> Outcome:
        if response.status == BAD_GATEWAY:
            self.gateway_errors += 1
            return Outcome.UNKNOWN
        return super()._read(response)


class Watch:
    """Looks how long at a time no order ended."""

    def __init__(self, url: str) -> None:
        self.longest = 0.0
        self._url = url
        self._changed_at = time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def restart(self) -> None:
        """Forget the longest time."""
        self.longest, self._changed_at = 0.0, time.monotonic()

    def _look(self) -> None:
        last = None
        while not self._stopping.is_set():
            with (
                suppress(psycopg.Error),
                psycopg.connect(self._url, autocommit=True, connect_timeout=2) as connection,
            ):
                while not self._stopping.wait(0.1):
                    found = connection.execute(ENDED, (TERMINAL,)).fetchone()
                    self.longest = max(self.longest, time.monotonic() - self._changed_at)
                    if found != last:
                        last, self._changed_at = found, time.monotonic()
            self._stopping.wait(0.1)


class System:
    """All processes, and the faults that they meet in turn."""

    def __init__(self, cluster: NatsCluster, replicas: dict[str, list[Replica]]) -> None:
        self.cluster = cluster
        self.replicas = replicas

    def roll(self, service: str, replicas: Sequence[Replica]) -> None:
        """Stop one replica after the other, and start this source in its place."""
        for each in replicas:
            code = each.stop()
            assert code == 0, f"{service} ended with exit code {code}"
            each.start()

    def kill(self, service: str) -> None:
        """Kill a replica, and start it again."""
        self.replicas[service][0].kill()
        self.replicas[service][0].start()

    def freeze(self, service: str) -> None:
        """Stop all threads of a replica for a while."""
        frozen = self.replicas[service][1]
        frozen.send(signal.SIGSTOP)
        time.sleep(FROZEN_SECONDS)
        frozen.send(signal.SIGCONT)
        until(frozen.is_ready, f"{service} is not ready after it was frozen")

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Start again what ends by itself: after a failover services end, and recover at their start."""

        def launch_again() -> None:
            for each in (each for those in self.replicas.values() for each in those):
                if each.ended:
                    each.launch()

        with repeating(launch_again, every_seconds=0.2):
            yield

    def kill_leader(self) -> None:
        """Kill the server that leads the stream, and start it again."""
        leader = self.cluster.servers[asyncio.run(self.cluster.leader())]
        leader.stop()
        time.sleep(FROZEN_SECONDS / 2)
        leader.start()


def main() -> int:
    """Run the proof; return 1 if anything is broken, 2 if something needed is missing."""
    options = ArgumentParser(description="Prove that nothing is lost at scale.")
    options.add_argument("--orders", type=int, default=10_000)
    options.add_argument("--rate", type=float, default=100.0)
    options.add_argument("--partitions", type=int, default=EACH, choices=NUMBERS)
    options.add_argument("--beside", type=float, default=0.0, metavar="MINUTES")
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    if os.geteuid() != 0 or BIN is None or HAPROXY is None:
        print("make scale needs root, and: apt-get install postgresql haproxy", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, ExitStack() as started:
        return prove(Path(folder), started, chosen)


def prove(folder: Path, started: ExitStack, chosen: Namespace) -> int:
    """Start everything, break it step by step, and judge."""
    primary = started.enter_context(postgresql())
    primary.create_databases(system.names)
    standby = started.enter_context(standby_of(primary))
    # What is committed is on both: nothing that was answered is lost with the primary.
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    cluster = NatsCluster(folder, free_ports(3))
    cluster.start()
    started.callback(cluster.stop)
    stack = Stack(_settings(folder, primary, standby, cluster), folder / "log")
    replicas = {
        # Not tethered: the thread that starts them again at the failover ends before they do.
        name: [Replica(name, stack.settings, stack.log, tethered=False) for _ in range(EACH)]
        for name in system.names
    }
    for each in (each for those in replicas.values() for each in those):
        started.callback(each.kill)
    _start_last_release(folder, stack.settings, primary, replicas)
    ports = {name: stack.settings.port(name) for name in system.names}
    started.enter_context(balancer(folder, ports, replicas))
    until(lambda: all(map(stack.client.is_ready, system.names)), "the balancer has no server")
    prepare_products(stack)
    parts = System(cluster, replicas)
    load = BalancedLoad(
        stack,
        orders_per_second=chosen.rate,
        seed=chosen.seed,
        answer_seconds_max=ANSWER_SECONDS_MAX,
    )
    stalls: dict[str, float] = {}
    with Watch(str(stack.settings.database("orders"))) as watch, load:
        if chosen.beside:
            with _step("both releases beside each other", load, watch, stalls):
                for name in system.names:
                    parts.roll(name, parts.replicas[name][:1])
                load.go_on_for(chosen.beside * 60)
        for name in system.names:
            with _step(f"{name} rolled", load, watch, stalls):
                parts.roll(name, parts.replicas[name])
        if chosen.partitions > 1:
            with _step(f"all rolled to {chosen.partitions} partitions", load, watch, stalls):
                for name in system.names:
                    for each in parts.replicas[name]:
                        each.configure(TODOKU_PARTITIONS=str(chosen.partitions))
                    parts.roll(name, parts.replicas[name])
        one_until = datetime.now(UTC)
        if not chosen.beside:
            one_until = _break_everything(
                parts, primary, standby, load, watch, stalls, chosen.orders
            )
    return _judge(stack, load, stalls, one_until)


def _break_everything(
    parts: System,
    primary: PostgreSQL,
    standby: PostgreSQL,
    load: BalancedLoad,
    watch: Watch,
    stalls: dict[str, float],
    orders: int,
) -> datetime:
    """Break each part once, and go on until so many orders have been accepted. Return when PostgreSQL began
    to fail over: from then on a database is another one."""
    for name in system.names:
        with _step(f"a replica of {name} killed", load, watch, stalls):
            parts.kill(name)
        with _step(f"a replica of {name} frozen", load, watch, stalls):
            parts.freeze(name)
    with _step("the stream's leader killed", load, watch, stalls):
        parts.kill_leader()
    with _step("PostgreSQL restarted", load, watch, stalls):
        primary.stop()
        primary.start()
    failed_over_at = datetime.now(UTC)
    with parts.supervised():
        with _step("PostgreSQL failed over", load, watch, stalls):
            primary.stop()
            standby.promote()
        while len(load.accepted) < orders:
            load.until_accepted(min(100, orders - len(load.accepted)))
    return failed_over_at


def _settings(
    folder: Path, primary: PostgreSQL, standby: PostgreSQL, cluster: NatsCluster
) -> Settings:
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    query = "target_session_attrs=read-write"
    urls = {
        f"{name}_database_url": f"postgresql://postgres@{hosts}/{name}?{query}"
        for name in system.names
    }
    return isolated_settings(
        folder / "data",
        **urls,
        nats_url=",".join(cluster.urls),
        stream_replicas=EACH,
        drain_seconds=2.0,
    )


def _start_last_release(
    folder: Path, settings: Settings, primary: PostgreSQL, replicas: dict[str, list[Replica]]
) -> None:
    """Start the last release on the primary: it knows neither the standby nor replicas of the stream."""
    known = {k: v for k, v in to_environment(settings).items() if k in KNOWN_BY_THE_LAST_RELEASE}
    urls = {f"TODOKU_{name.upper()}_DATABASE_URL": primary.url(name) for name in replicas}
    environment = source_of_the_last_release(folder) | known | urls
    for those in replicas.values():
        for each in those:
            each.start(environment)


@contextmanager
def _step(name: str, load: OrderLoad, watch: Watch, stalls: dict[str, float]) -> Iterator[None]:
    load.until_accepted(100)
    watch.restart()
    yield
    load.until_accepted(200)
    stalls[name] = watch.longest
    print(
        f"{len(load.accepted):>6,} accepted: {name}, no order ended for {watch.longest:.1f} s",
        flush=True,
    )


def _judge(stack: Stack, load: BalancedLoad, stalls: dict[str, float], one_until: datetime) -> int:
    """Judge what became of the orders. Nobody has restored a database, so none was until PostgreSQL failed
    over, at `one_until`."""
    verdict = judge(stack.settings, load, within_seconds=SETTLE_SECONDS)
    environment = {**os.environ, **to_environment(stack.settings)}
    verified = subprocess.run([*TODOKU, "verify", "--strict"], env=environment, check=False)
    problems = [*verdict.broken]
    if load.unknown:
        problems.append(f"{load.unknown} requests were never answered")
    if verified.returncode:
        problems.append("todoku verify has found something")
    report = audit_all(stack.settings, overdue_seconds=SETTLE_SECONDS)
    problems += [
        f"{log.service} took its database for a restored one at {restored_at:%H:%M:%S} UTC"
        for log in report.audit_logs
        for restored_at in log.restored_at
        if restored_at < one_until
    ]
    problems += [
        f"no order ended for {stall:.1f} s: {name}"
        for name, stall in stalls.items()
        if stall > STALL_SECONDS_MAX and "PostgreSQL" not in name
    ]
    print(
        f"{load}; {load.gateway_errors} answers 502; {verdict.orders}, quiescent after"
        f" {verdict.settled_seconds} s; {len(problems)} problems"
    )
    for problem in problems[:PROBLEMS_SHOWN]:
        print(f"  {problem}")
    if problems:
        kept = Path(tempfile.mkdtemp(prefix="todoku-scale-"), "log")
        shutil.copy(stack.log, kept)
        print(f"what the services logged: {kept}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""What an order costs in messages, commits, fsyncs and round trips, on a real broker: counted, not
timed.

A hundred orders arrive at once, which is how a busy system sees them.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from uuid_utils import uuid7

from bench.fsyncs import CannotCount, counting_fsyncs
from conformance.brokers import NatsServer, until
from todoku.broker import Delivery, Outgoing, Stored
from todoku.broker.nats import SINGLES_MAX, NatsBroker
from todoku.broker.nats_consumer import NatsConsumer
from todoku.broker.port import StartAfter
from todoku.contracts import OrderedItem
from todoku.database import Database, migrate
from todoku.engine import Process, Service, SteadyClock, Topology
from todoku.engine.testing import running
from todoku.inventory.domain import SetProduct
from todoku.orders.placing import PlaceOrder
from todoku.settings import Span
from todoku.system import system

ORDERS = 100
PRODUCTS = 10
MESSAGES_AN_ORDER = 5
"""Created, reserved, shipment initiated, shipment completed, order completed."""

DELIVERIES_AN_ORDER = 6
"""The first and the third have one subscriber, the second and the fourth two, the last none."""


PUBLISHERS_CONSUMED = {"orders": 2, "inventory": 2, "shipping": 1}


class Tally(msgspec.Struct):
    """Count what a hundred orders cost the three services."""

    published: Counter[str]
    publishes: Counter[str]
    receipts: Counter[str]
    delivered: Counter[str]
    commits: dict[str, int]
    repeated: dict[str, int]
    synced: Counter[str]
    """How often each file was synced, by its path."""


class CountedBroker(NatsBroker):
    """The real broker; counts its calls."""

    def __init__(self, url: str, service: str, tally: Tally) -> None:
        super().__init__(url, name=service)
        self._service = service
        self._tally = tally

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        self._tally.publishes[self._service] += 1
        self._tally.published.update(message.subject for message in messages)
        return await super().publish(messages)

    def notify(self, subject: str, body: bytes) -> None:
        self._tally.receipts[self._service] += subject.startswith("receipts.")
        super().notify(subject, body)

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        *,
        start_after: StartAfter | None = None,
    ) -> NatsConsumer:
        def counted(deliveries: Sequence[Delivery]) -> None:
            self._tally.delivered[self._service] += len(deliveries)
            deliver(deliveries)

        return await super().subscribe(durable, subjects, counted, start_after=start_after)


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def process(
    service: Service, services: Sequence[Service], broker: NatsBroker, database: Database
) -> Process:
    migrate(database, system[service.name].package)
    return Process(
        service,
        database,
        broker,
        Topology(services),
        owner="test",
        clock=SteadyClock(),
        run_write=at_once,
        run_read=at_once,
    )


def order(n: int) -> PlaceOrder:
    items = tuple(
        OrderedItem(product_id=f"prod{(n + k) % PRODUCTS}", quantity=1, price=1) for k in range(2)
    )
    return PlaceOrder(order_id=str(uuid7()), user_id="user", items=items, currency="JPY")


async def place_a_hundred_orders(url: str, folder: Path, synced: Mapping[str, int]) -> Tally:
    services = system.build(
        system.settings(carrier_delay_seconds=Span(0, 0), carrier_success_rate=1)
    )
    tally = Tally(Counter(), Counter(), Counter(), Counter(), {}, {}, Counter())
    async with AsyncExitStack() as stack:
        processes: dict[str, Process] = {}
        databases = {}
        for service in services:
            database = stack.enter_context(Database.open(folder / f"{service.name}.db"))
            databases[service.name] = database
            broker = CountedBroker(url, service.name, tally)
            processes[service.name] = process(service, services, broker, database)
        for each in processes.values():
            await stack.enter_async_context(running(each))
        await until(lambda: all(each.connected for each in processes.values()))
        execute = processes["inventory"].execute
        for n in range(PRODUCTS):
            await execute(
                SetProduct(product_id=f"prod{n}", name="n", price=1, stock_quantity=10**6)
            )
        await until(lambda: settled(processes, databases, PRODUCTS))
        for counter in (tally.published, tally.publishes, tally.receipts, tally.delivered):
            counter.clear()
        before = {name: each.counts.batches for name, each in processes.items()}
        synced_before = Counter(synced)
        await asyncio.gather(*(processes["orders"].execute(order(n)) for n in range(ORDERS)))
        deliveries = PRODUCTS + ORDERS * DELIVERIES_AN_ORDER
        await until(lambda: settled(processes, databases, deliveries))
        tally.commits = {
            name: each.counts.batches - before[name] for name, each in processes.items()
        }
        tally.synced = Counter(synced) - synced_before
        tally.repeated = {name: p.relay.events_repeated for name, p in processes.items()}
    return tally


def settled(processes: dict[str, Process], databases: dict[str, Database], deliveries: int) -> bool:
    """Whether every event has been read, so many times, and receipted by all who react to it."""
    pending = 0
    for name, each in processes.items():
        with databases[name].read() as connection:
            pending += each.service.store.tables.outbox.backlog(connection)
    done = sum(each.counts.acknowledged for each in processes.values())
    return pending == 0 and done >= deliveries


@pytest.fixture(scope="module")
def tally(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tally]:
    folder = tmp_path_factory.mktemp("counts")
    server = NatsServer(folder)

    def run(synced: Mapping[str, int]) -> Tally:
        server.start()
        try:
            return asyncio.run(place_a_hundred_orders(server.url, folder, synced))
        finally:
            server.stop()

    try:
        with counting_fsyncs() as counter:
            yield counter.run(run, counter.counts)
    except CannotCount:
        yield run({})


def test_completed_order_is_five_messages_in_the_stream(tally: Tally) -> None:
    assert tally.published == {
        "orders.created": ORDERS,
        "inventory.reserved": ORDERS,
        "shipping.initiated": ORDERS,
        "shipping.completed": ORDERS,
        "orders.completed": ORDERS,
    }
    assert tally.published.total() == ORDERS * MESSAGES_AN_ORDER


def test_order_is_consumed_six_times_and_nothing_twice(tally: Tally) -> None:
    assert tally.delivered.total() == ORDERS * DELIVERIES_AN_ORDER
    assert set(tally.repeated.values()) == {0}


def test_a_commit_leads_to_one_publish_at_most(tally: Tally) -> None:
    for service, publishes in tally.publishes.items():
        assert publishes <= tally.commits[service], tally


def test_a_commit_leads_to_one_receipt_for_each_publisher_at_most(tally: Tally) -> None:
    for service, receipts in tally.receipts.items():
        assert receipts <= PUBLISHERS_CONSUMED[service] * tally.commits[service], tally


def test_many_messages_are_committed_together(tally: Tally) -> None:
    """Each service takes hundreds of messages, commands and answers; some six commits are usual."""
    assert max(tally.commits.values()) <= ORDERS / 2, tally


def test_a_commit_is_one_fsync_at_most(tally: Tally) -> None:
    _require_counted(tally)
    for service, commits in tally.commits.items():
        synced = {path: n for path, n in tally.synced.items() if f"/{service}.db" in path}
        assert [Path(path).name for path in synced] == [f"{service}.db-wal"], tally
        assert sum(synced.values()) <= commits, tally


def test_a_publish_is_a_handful_of_fsyncs_however_many_messages_it_has(tally: Tally) -> None:
    """Some for a batch, or one for each of a few single messages. How often the broker notes where
    its readers are (`obs`) goes by the clock, and is not counted."""
    _require_counted(tally)
    synced = sum(
        n for path, n in tally.synced.items() if "/jetstream/" in path and "/obs/" not in path
    )
    assert tally.publishes.total() <= synced <= SINGLES_MAX * tally.publishes.total(), tally


def _require_counted(tally: Tally) -> None:
    if not tally.synced:
        pytest.skip("fsyncs cannot be counted here")

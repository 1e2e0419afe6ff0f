"""A stream with three replicas goes on without any one of its servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from brokers import NatsCluster, until

from todoku.broker import BrokerUnavailable, Delivery, Outgoing
from todoku.broker.nats import NatsBroker
from todoku.broker.port import Subscription

pytestmark = pytest.mark.anyio

SUBJECT = "orders.created"
BOUND_SECONDS = 60.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def cluster(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> AsyncIterator[NatsCluster]:
    cluster = NatsCluster(tmp_path, free_ports(3))
    await asyncio.to_thread(cluster.start)
    yield cluster
    cluster.stop()


class Reader:
    """Collect the bodies of what a durable delivers, and acknowledge it."""

    def __init__(self) -> None:
        self.bodies: set[bytes] = set()
        self.subscription: Subscription | None = None

    def take(self, deliveries: Sequence[Delivery]) -> None:
        self.bodies.update(delivery.body for delivery in deliveries)
        assert self.subscription is not None
        self.subscription.ack(deliveries)
        self.subscription.want(len(deliveries))


async def publish(broker: NatsBroker, body: bytes) -> None:
    """Publish until it is stored, as the relay does."""
    async with asyncio.timeout(BOUND_SECONDS):
        while True:
            with contextlib.suppress(BrokerUnavailable):
                await broker.publish([Outgoing(SUBJECT, body)])
                return
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def connected(cluster: NatsCluster) -> AsyncIterator[tuple[NatsBroker, Reader]]:
    """Connect a broker that wants three replicas, with a reader of all that is published."""
    broker = NatsBroker(cluster.urls, replicas=3)
    await broker.start()
    await until(lambda: broker.connected, BOUND_SECONDS)
    reader = Reader()
    reader.subscription = await broker.subscribe("reader", [SUBJECT], reader.take)
    reader.subscription.want(100)
    try:
        yield broker, reader
    finally:
        await broker.stop()


@pytest.mark.parametrize(
    "how",
    [
        "stopped",
        pytest.param("killed", marks=pytest.mark.faults),
        pytest.param("wiped", marks=pytest.mark.faults),
    ],
)
async def test_goes_on_when_the_leader_is(how: str, cluster: NatsCluster) -> None:
    """What was published before and after arrives, each time another server has to lead."""
    async with connected(cluster) as (broker, reader):
        await publish(broker, b"first")
        for number in range(2):
            leader = cluster.servers[await cluster.leader()]
            await asyncio.to_thread(leader.terminate if how == "stopped" else leader.stop)
            body = b"after %d" % number
            await publish(broker, body)
            await until(lambda body=body: body in reader.bodies, BOUND_SECONDS)
            await asyncio.to_thread(leader.wipe if how == "wiped" else leader.start)
    assert reader.bodies == {b"first", b"after 0", b"after 1"}


@pytest.mark.faults
async def test_stores_again_when_a_majority_is_back(cluster: NatsCluster) -> None:
    """Nothing can be stored while two of three are gone."""
    async with connected(cluster) as (broker, reader):
        await publish(broker, b"first")
        gone = list(cluster.servers.values())[:2]
        for server in gone:
            await asyncio.to_thread(server.stop)
        with pytest.raises(BrokerUnavailable):
            await broker.publish([Outgoing(SUBJECT, b"too early")])
        for server in gone:
            await asyncio.to_thread(server.start)
        await publish(broker, b"second")
        await until(lambda: {b"first", b"second"} <= reader.bodies, BOUND_SECONDS)

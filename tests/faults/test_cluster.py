"""Test that orders end while servers of a NATS cluster are stopped, killed and wiped, the leader first."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.brokers import NatsCluster
from faults.conftest import Prove
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import Stack

pytestmark = pytest.mark.faults


@pytest.fixture
def cluster(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> Iterator[NatsCluster]:
    cluster = NatsCluster(tmp_path, free_ports(3))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.mark.parametrize("how", ["stopped", "killed", "wiped"])
def test_leading_server_is(
    how: str, cluster: NatsCluster, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """Three replicas of the stream: each server leads, is gone for a while, and comes back."""
    stack = make_stack(nats_url=",".join(cluster.urls), stream_replicas=3)
    stack.start()
    prepare_products(stack)
    with OrderLoad(stack) as load:
        for _ in range(3):
            load.until_accepted(200)
            leader = cluster.servers[asyncio.run(cluster.leader())]
            (leader.terminate if how == "stopped" else leader.stop)()
            load.until_accepted(200)
            (leader.wipe if how == "wiped" else leader.start)()
        load.until_accepted(200)
    prove(stack, load, injected=3)

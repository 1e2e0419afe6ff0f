"""Test that the NATS broker ends what it has begun, and begins again, whatever happens at the same moment."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from brokers import NatsHost, until

from todoku.broker import Delivery, Outgoing
from todoku.broker.nats import NatsBroker
from todoku.broker.nats_link import Link

pytestmark = pytest.mark.anyio

SECONDS_MAX = 5


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[NatsHost]:
    host = NatsHost(tmp_path)
    yield host
    await host.close()


async def test_broker_stops_although_the_server_reports_an_error_at_the_same_moment(
    host: NatsHost,
) -> None:
    broker = await host.connect()
    assert broker._link is not None
    await broker._link._on_error(RuntimeError("permissions violation"))
    async with asyncio.timeout(SECONDS_MAX):
        await broker.stop()
    assert not broker.connected


async def test_broker_stops_although_the_client_library_ignores_a_cancellation(
    host: NatsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nats-py does on Python 3.11, if it is cancelled while a server accepts its connection."""
    connecting = asyncio.Event()

    async def open_(link: Link, urls: list[str], _: object) -> None:
        connecting.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await link._client.connect(urls)

    monkeypatch.setattr(Link, "open", open_)
    broker = NatsBroker(host.server.url)
    await broker.start()
    await connecting.wait()
    async with asyncio.timeout(SECONDS_MAX):
        await broker.stop()
    assert not broker.connected


async def test_connection_that_is_lost_while_the_server_ends_a_pull_leaves_no_second_consumer(
    host: NatsHost,
) -> None:
    """A second one would close the reply inbox of the first again and again."""
    received: list[Delivery] = []
    broker = await host.connect()
    consumer = await broker.subscribe("inventory", ["orders.created"], received.extend)
    consumer.want(100)
    await broker.publish([Outgoing("orders.created", b"before")])
    await until(lambda: len(received) == 1)

    serving = consumer._serving
    assert serving is not None
    consumer._stale.set()
    consumer.detach()

    await until(serving.done, SECONDS_MAX)
    await broker.stop()


async def test_what_is_subscribed_while_the_connection_is_being_lost_takes_effect_with_the_next(
    host: NatsHost,
) -> None:
    received: list[Delivery] = []
    notes: list[bytes] = []
    broker = await host.connect()
    assert broker._link is not None
    await broker._link._client.close()  # The supervisor has not noticed yet.
    await broker.listen("receipts.orders", notes.append)
    (await broker.subscribe("inventory", ["orders.created"], received.extend)).want(100)

    await until(lambda: broker.connected)
    await broker.publish([Outgoing("orders.created", b"after")])
    broker.notify("receipts.orders", b"receipt")

    await until(lambda: len(received) == 1)
    await until(lambda: notes == [b"receipt"])
    await broker.stop()

"""What every broker must do for the engine, run on the in-memory one and on a real nats-server."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from brokers import BrokerHost, MemoryHost, NatsHost, NatsServer, until

from todoku.broker import (
    Broker,
    BrokerUnavailable,
    BrokerUnsuitable,
    Delivery,
    Outgoing,
    Subscription,
)
from todoku.broker.nats import NatsBroker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "nats"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BrokerHost]:
    host: BrokerHost = MemoryHost() if request.param == "memory" else NatsHost(tmp_path)
    yield host
    await host.close()


@pytest.fixture
async def nats_host(tmp_path: Path) -> AsyncIterator[NatsHost]:
    host = NatsHost(tmp_path)
    yield host
    await host.close()


class Servers:
    """Servers for the tests that need a special one; they end with the test."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: list[NatsServer] = []

    def new(self, **settings: Any) -> NatsServer:
        server = NatsServer(self._directory, **settings)
        self._servers.append(server)
        return server

    def stop(self) -> None:
        for server in self._servers:
            server.stop()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


class Connections:
    """Connections to the host that end with the test."""

    def __init__(self) -> None:
        self.brokers: list[Broker] = []

    async def __call__(self, host: BrokerHost, name: str = "test", **settings: Any) -> Broker:
        broker = await host.connect(name, **settings)
        self.brokers.append(broker)
        return broker


@pytest.fixture
async def connect() -> AsyncIterator[Connections]:
    connections = Connections()
    yield connections
    for broker in connections.brokers:
        await broker.stop()


class Reading:
    """A durable reader that keeps what it is given."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.subscription: Subscription

    @classmethod
    async def of(
        cls,
        broker: Broker,
        durable: str = "inventory",
        subjects: Sequence[str] = ("orders.created",),
        *,
        want: int = 100,
    ) -> "Reading":
        reading = cls()
        reading.subscription = await broker.subscribe(durable, subjects, reading.deliveries.extend)
        reading.subscription.want(want)
        return reading

    async def has(self, count: int) -> list[Delivery]:
        """The deliveries, as soon as there are `count` of them."""
        await until(lambda: len(self.deliveries) >= count)
        return list(self.deliveries)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]


def orders(count: int, first: int = 1) -> list[Outgoing]:
    return [Outgoing("orders.created", b"order %d" % n) for n in range(first, first + count)]


def bodies(count: int, first: int = 1) -> list[bytes]:
    return [message.body for message in orders(count, first)]


async def published(broker: Broker, messages: Sequence[Outgoing]) -> None:
    """Publish as the engine does: again, until the broker says that it is stored."""
    async with asyncio.timeout(20):
        while True:
            try:
                await broker.publish(messages)
            except BrokerUnavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def settled_up_to(broker: Broker, reader: str, sequence: int) -> None:
    """Wait until the broker says that the reader has settled everything up to this place."""
    async with asyncio.timeout(20):
        while True:
            if (await broker.progress([reader])).consumed.get(reader) == sequence:
                return
            await asyncio.sleep(0.02)


# Publishing and reading


@pytest.mark.parametrize("count", [1, 5, 100, 2_500])
async def test_what_is_published_is_delivered_whole_and_in_order(
    host: BrokerHost, connect: Connections, count: int
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=count)
    stored = await broker.publish(orders(count))
    deliveries = await reading.has(count)
    assert stored.sequence == count
    assert [delivery.body for delivery in deliveries] == bodies(count)
    assert [delivery.sequence for delivery in deliveries] == list(range(1, count + 1))
    assert {delivery.subject for delivery in deliveries} == {"orders.created"}
    assert {delivery.attempt for delivery in deliveries} == {1}


async def test_sequences_go_on_from_one_publish_to_the_next(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    first = await broker.publish(orders(3))
    second = await broker.publish(orders(20, first=4))
    assert (first.sequence, second.sequence) == (3, 23)
    assert first.stream_epoch == second.stream_epoch


async def test_publishes_at_the_same_time_do_not_mix_up_their_answers(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    counts = [1, 30, 5, 12, 2]
    results = await asyncio.gather(*(broker.publish(orders(count)) for count in counts))
    assert max(stored.sequence for stored in results) == sum(counts)
    assert len({stored.sequence for stored in results}) == len(counts)


async def test_a_reader_starts_at_the_beginning_of_the_stream(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await broker.publish(orders(3))
    reading = await Reading.of(broker)
    await reading.has(3)
    assert reading.bodies == bodies(3)


async def test_two_durables_each_get_everything_on_their_subjects(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    inventory = await Reading.of(broker, "inventory", ["orders.created", "shipping.*"])
    shipping = await Reading.of(broker, "shipping", ["inventory.>"])
    await broker.publish(
        [
            Outgoing("orders.created", b"1"),
            Outgoing("inventory.reserved", b"2"),
            Outgoing("shipping.failed", b"3"),
            Outgoing("orders.cancelled", b"4"),
            Outgoing("inventory.reserved", b"5"),
        ]
    )
    await inventory.has(2)
    await shipping.has(2)
    assert inventory.bodies == [b"1", b"3"]
    assert shipping.bodies == [b"2", b"5"]


# Credit


async def test_no_more_arrives_than_was_asked_for(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=0)
    await broker.publish(orders(60))
    for allowed in (7, 8, 30):
        reading.subscription.want(allowed - len(reading.deliveries))
        await reading.has(allowed)
        await broker.publish(orders(1))  # Time enough for one too many to arrive.
        await broker.progress(["inventory"])
        assert len(reading.deliveries) == allowed
    reading.subscription.want(33)
    await reading.has(63)


async def test_credit_given_in_small_pieces_adds_up(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=1)
    for _ in range(49):
        reading.subscription.want(1)
    await broker.publish(orders(80))
    await reading.has(50)
    await broker.progress(["inventory"])
    assert len(reading.deliveries) == 50


async def test_credit_comes_back_only_through_want(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=5)
    await broker.publish(orders(10))
    reading.subscription.ack(await reading.has(5))
    await settled_up_to(broker, "inventory", 5)
    assert len(reading.deliveries) == 5


# Settling


async def test_what_is_acked_does_not_come_again_and_what_is_not_does(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(4))
    deliveries = await reading.has(4)
    reading.subscription.ack([deliveries[0], deliveries[2]])
    again = (await reading.has(6))[4:]
    assert {(delivery.body, delivery.attempt) for delivery in again} == {
        (b"order 2", 2),
        (b"order 4", 2),
    }
    reading.subscription.ack(again)
    await settled_up_to(broker, "inventory", 4)


async def test_a_nak_brings_the_message_again_with_the_next_attempt(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(1))
    for attempt in (1, 2, 3):
        delivery = (await reading.has(attempt))[-1]
        assert (delivery.attempt, delivery.sequence) == (attempt, 1)
        reading.subscription.nak(delivery, 0)


async def test_a_nak_holds_a_message_back_for_its_delay_and_lets_others_pass(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(1))
    [first] = await reading.has(1)
    asked = asyncio.get_running_loop().time()
    reading.subscription.nak(first, 0.4)
    await broker.publish(orders(1, first=2))
    second, again = (await reading.has(3))[1:]
    assert (second.body, again.body) == (b"order 2", b"order 1")
    assert asyncio.get_running_loop().time() - asked >= 0.35


async def test_a_terminated_message_never_comes_again(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(2))
    poison, healthy = await reading.has(2)
    reading.subscription.term(poison)
    again = (await reading.has(3))[2]
    assert again.body == healthy.body
    reading.subscription.ack([again])
    await settled_up_to(broker, "inventory", 2)
    assert len(reading.deliveries) == 3


async def test_what_a_gone_process_left_unsettled_comes_to_the_next_one(
    host: BrokerHost, connect: Connections
) -> None:
    first, second = await connect(host, "first"), await connect(host, "second")
    reading = await Reading.of(first)
    await first.publish(orders(3))
    deliveries = await reading.has(3)
    reading.subscription.ack(deliveries[:1])
    await settled_up_to(second, "inventory", 1)
    await first.stop()
    successor = await Reading.of(second)
    again = await successor.has(2)
    assert sorted(delivery.sequence for delivery in again) == [2, 3]
    assert {delivery.attempt for delivery in again} == {2}


async def test_processes_that_share_a_durable_share_its_messages(
    host: BrokerHost, connect: Connections
) -> None:
    one, other = await connect(host, "one"), await connect(host, "other")
    readings = [await Reading.of(one, want=10), await Reading.of(other, want=10)]
    await one.publish(orders(20))
    for reading in readings:
        reading.subscription.ack(await reading.has(10))
    assert sorted(readings[0].bodies + readings[1].bodies) == sorted(bodies(20))


async def test_a_stopped_reader_is_given_nothing_more(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(1))
    reading.subscription.ack(await reading.has(1))
    await reading.subscription.stop()
    await broker.publish(orders(5, first=2))
    successor = await Reading.of(broker)
    await successor.has(5)
    assert reading.bodies == bodies(1)


# Progress


async def test_progress_tells_the_ends_of_the_stream_and_how_far_each_reader_is(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=3)
    await Reading.of(broker, "shipping", ["inventory.>"])
    stored = await broker.publish(orders(5))
    deliveries = await reading.has(3)
    reading.subscription.ack([deliveries[0], deliveries[2]])
    await settled_up_to(broker, "inventory", 1)
    progress = await broker.progress(["inventory", "shipping", "nobody"])
    assert progress.stream_epoch == stored.stream_epoch
    assert (progress.first_sequence, progress.last_sequence) == (1, 5)
    assert progress.consumed == {"inventory": 1, "shipping": 5}


async def test_a_reader_that_has_settled_its_last_message_is_at_the_end_of_the_stream(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish([*orders(1), Outgoing("shipping.failed", b"not for it")])
    reading.subscription.ack(await reading.has(1))
    await settled_up_to(broker, "inventory", 2)


# The server goes and comes


async def test_while_the_broker_is_away_publish_and_progress_say_so(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await host.stop()
    await until(lambda: not broker.connected)
    with pytest.raises(BrokerUnavailable):
        await broker.publish(orders(1))
    with pytest.raises(BrokerUnavailable):
        await broker.progress(["inventory"])
    broker.notify("receipts.orders", b"lost, and nobody is told")
    await host.start()


async def test_after_a_restart_deliveries_go_on_without_new_credit(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=10)
    before = await broker.publish(orders(4))
    reading.subscription.ack(await reading.has(4))
    await settled_up_to(broker, "inventory", 4)
    await host.stop()
    await until(lambda: not broker.connected)
    await host.start()
    await published(broker, orders(8, first=5))
    await reading.has(10)
    assert (await broker.progress([])).stream_epoch == before.stream_epoch
    assert b"order 5" in reading.bodies
    assert len(reading.deliveries) == 10  # Some of them again: acks are not synced to the disk.


async def test_credit_given_and_readers_made_while_the_broker_is_away_count_when_it_is_back(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    early = await Reading.of(broker, want=0)
    await broker.publish(orders(3))
    await host.stop()
    await until(lambda: not broker.connected)
    early.subscription.want(3)
    late = await Reading.of(broker, "audit", want=3)
    await host.start()
    await early.has(3)
    await late.has(3)


async def test_a_wiped_disk_is_another_incarnation_in_which_everything_works(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    before = await broker.publish(orders(5))
    reading.subscription.ack(await reading.has(5))
    await host.wipe()
    await published(broker, orders(3, first=6))
    await reading.has(8)
    after = await broker.publish(orders(1, first=9))
    assert after.stream_epoch != before.stream_epoch
    assert after.stream_epoch == (await broker.progress([])).stream_epoch
    again = (await reading.has(9))[5:]
    assert [delivery.body for delivery in again] == bodies(4, first=6)
    reading.subscription.ack(again)
    await settled_up_to(broker, "inventory", after.sequence)


async def test_a_deleted_stream_is_made_anew(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    before = await broker.publish(orders(2))
    await reading.has(2)
    await host.delete_stream()
    await published(broker, orders(30, first=3))
    await reading.has(32)
    assert reading.bodies[2:] == bodies(30, first=3)
    assert (await broker.publish(orders(1))).stream_epoch != before.stream_epoch


async def test_an_ack_for_a_message_of_an_earlier_life_settles_nothing_in_a_later_one(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(1))
    [old] = await reading.has(1)
    await host.delete_stream()
    await published(broker, orders(1, first=2))
    await reading.has(2)
    reading.subscription.ack([old])
    again = (await reading.has(3))[2]
    assert (again.body, again.attempt) == (b"order 2", 2)


async def test_a_deleted_durable_is_made_anew_and_reads_from_the_start(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(2))
    reading.subscription.ack(await reading.has(2))
    await settled_up_to(broker, "inventory", 2)
    await host.delete_durable("inventory")
    await reading.has(4)
    assert reading.bodies[2:] == bodies(2)


async def test_a_purged_stream_lives_on_and_readers_go_on_behind_it(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker, want=0)
    before = await broker.publish(orders(5))
    await host.purge()
    await settled_up_to(broker, "inventory", 5)
    progress = await broker.progress([])
    assert (progress.first_sequence, progress.last_sequence) == (6, 5)
    reading.subscription.want(10)
    after = await broker.publish(orders(1, first=6))
    assert (after.stream_epoch, after.sequence) == (before.stream_epoch, 6)
    await reading.has(1)
    assert reading.bodies == bodies(1, first=6)


async def test_the_first_message_behind_a_place_is_found_by_its_subjects(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await broker.publish(
        [
            Outgoing("orders.created", b"1"),
            Outgoing("shipping.failed", b"2"),
            Outgoing("orders.created", b"3"),
        ]
    )
    assert await broker.first_after(0, ["orders.created", "shipping.failed"]) == 1
    assert await broker.first_after(1, ["orders.created", "shipping.failed"]) == 2
    assert await broker.first_after(1, ["orders.created"]) == 3
    assert await broker.first_after(3, ["orders.created"]) is None
    assert await broker.first_after(0, ["inventory.reserved"]) is None


async def test_a_durable_that_was_forgotten_reads_from_the_start_when_it_is_read_again(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    reading = await Reading.of(broker)
    await broker.publish(orders(2))
    reading.subscription.ack(await reading.has(2))
    await settled_up_to(broker, "inventory", 2)
    await reading.subscription.stop()
    await broker.forget("inventory")
    assert "inventory" not in (await broker.progress(["inventory"])).consumed
    again = await Reading.of(broker)
    assert [delivery.body for delivery in await again.has(2)] == bodies(2)
    await broker.forget("nobody")


# Telling and listening


async def test_every_listener_hears_and_of_a_group_one(
    host: BrokerHost, connect: Connections
) -> None:
    one, other = await connect(host, "one"), await connect(host, "other")
    alone: list[bytes] = []
    grouped: list[bytes] = []
    await one.listen("receipts.orders", alone.append)
    await one.listen("receipts.orders", grouped.append, group="orders")
    await other.listen("receipts.orders", grouped.append, group="orders")
    await other.listen("receipts.shipping", alone.append)
    await one.progress([])  # An answer means that what was asked before it has been done.
    await other.progress([])
    told = [b"receipt %d" % n for n in range(50)]
    for body in told:
        one.notify("receipts.orders", body)
    await until(lambda: len(alone) >= 50 and len(grouped) >= 50)
    assert alone == told
    assert sorted(grouped) == sorted(told)


async def test_listeners_hear_again_after_a_restart(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    heard: list[bytes] = []
    await broker.listen("receipts.orders", heard.append)
    await host.stop()
    await until(lambda: not broker.connected)
    await host.start()
    await until(lambda: broker.connected)
    broker.notify("receipts.orders", b"receipt")
    await until(lambda: heard == [b"receipt"])


async def test_a_stopped_broker_is_not_connected_and_stops_twice(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await Reading.of(broker)
    await broker.stop()
    await broker.stop()
    assert not broker.connected
    with pytest.raises(BrokerUnavailable):
        await broker.publish(orders(1))


# NATS alone


async def test_prefixes_keep_installations_on_one_server_apart(
    nats_host: NatsHost, connect: Connections
) -> None:
    plain = await connect(nats_host)
    staging = await connect(nats_host, prefix="staging", stream="STAGING")
    test = await connect(nats_host, prefix="test.eu.", stream="STAGING")
    readings = [await Reading.of(broker) for broker in (plain, staging, test)]
    heard: list[bytes] = []
    await staging.listen("receipts.orders", heard.append)
    await staging.progress([])
    for broker, name in ((plain, b"plain"), (staging, b"staging"), (test, b"test")):
        broker.notify("receipts.orders", name)
        await broker.publish([Outgoing("orders.created", name)] * 20)
    for reading, name in zip(readings, (b"plain", b"staging", b"test"), strict=True):
        reading.subscription.ack(await reading.has(20))
        assert set(reading.bodies) == {name}
        assert {delivery.subject for delivery in reading.deliveries} == {"orders.created"}
    await settled_up_to(test, "inventory", 40)
    assert heard == [b"staging"]


async def test_a_broker_starts_before_its_server_does(servers: Servers) -> None:
    server = servers.new()
    server.start()
    server.stop()
    broker = NatsBroker(server.url)
    await broker.start()
    reading = await Reading.of(broker)
    await until(lambda: broker.problem is not None)
    assert not broker.connected
    await asyncio.to_thread(server.start)
    await published(broker, orders(1))
    await reading.has(1)
    assert broker.problem is None
    await broker.stop()


async def test_a_server_without_jetstream_is_unsuitable_until_it_has_it(servers: Servers) -> None:
    server = servers.new(jetstream=False)
    server.start()
    broker = NatsBroker(server.url)
    await broker.start()
    await until(lambda: isinstance(broker.problem, BrokerUnsuitable))
    assert "--jetstream" in str(broker.problem)
    assert not broker.connected
    with pytest.raises(BrokerUnavailable, match="without JetStream"):
        await broker.publish(orders(1))
    server.stop()
    upgraded = servers.new()
    upgraded.port = server.port
    await asyncio.to_thread(upgraded.start)
    await published(broker, orders(1))
    await broker.stop()


async def test_a_refused_user_is_told_to_check_the_credentials(servers: Servers) -> None:
    server = servers.new(extra="authorization { user: todoku, password: secret }")
    server.start()
    broker = NatsBroker(server.url)
    await broker.start()
    await until(lambda: isinstance(broker.problem, BrokerUnsuitable))
    assert "check the credentials" in str(broker.problem)
    await broker.stop()


async def test_a_forbidden_publish_names_the_missing_permission(servers: Servers) -> None:
    permissions = 'publish: { deny: ["shipping.>"] }'
    user = f"{{ user: todoku, password: secret, permissions: {{ {permissions} }} }}"
    server = servers.new(extra=f"authorization {{ users: [ {user} ] }}")
    server.start()
    options = {"user": "todoku", "password": "secret"}
    broker = NatsBroker(server.url, options=options, publish_timeout_seconds=0.5)
    await broker.start()
    await published(broker, orders(1))
    with pytest.raises(BrokerUnsuitable, match="shipping"):
        await broker.publish([Outgoing("shipping.failed", b"forbidden")])
    await broker.stop()


@pytest.mark.parametrize("count", [1, 50])
async def test_a_refusal_in_the_answer_is_an_error_with_its_reason(
    nats_host: NatsHost, connect: Connections, count: int
) -> None:
    broker = await connect(nats_host)
    await nats_host.update_stream(sealed=True)
    with pytest.raises(BrokerUnavailable, match="sealed"):
        await broker.publish(orders(count))


async def test_a_stream_that_an_operator_has_changed_is_put_right(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    before = await broker.publish(orders(1))
    await nats_host.update_stream(allow_atomic=False)
    after = await broker.publish(orders(50))
    assert (after.stream_epoch, after.sequence) == (before.stream_epoch, 51)


async def test_an_event_too_large_for_the_server_is_refused_before_anything_is_sent(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    with pytest.raises(BrokerUnsuitable, match="max_payload"):
        await broker.publish([*orders(1), Outgoing("orders.created", b"x" * 1024 * 1024)])
    assert (await broker.publish(orders(1))).sequence == 1


async def test_events_of_many_bytes_are_stored_in_several_batches(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    large = [Outgoing("orders.created", b"%d" % n + b"x" * 500_000) for n in range(24)]
    reading = await Reading.of(broker)
    assert (await broker.publish(large)).sequence == 24
    await reading.has(24)
    assert reading.bodies == [message.body for message in large]


async def test_a_frozen_server_is_noticed_and_stop_does_not_wait_for_it(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host, publish_timeout_seconds=0.3)
    reading = await Reading.of(broker)
    await published(broker, orders(1))
    await reading.has(1)
    nats_host.server.freeze()
    with pytest.raises(BrokerUnavailable, match="did not answer"):
        await broker.publish(orders(1, first=2))
    async with asyncio.timeout(3):
        await broker.stop()
    nats_host.server.thaw()


async def test_a_reader_is_served_again_after_its_server_was_frozen(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host, publish_timeout_seconds=0.3)
    reading = await Reading.of(broker, want=5)
    await published(broker, orders(1))
    await reading.has(1)
    nats_host.server.freeze()
    await until(lambda: not broker.connected)
    nats_host.server.thaw()
    await published(broker, orders(1, first=2))
    await until(lambda: b"order 2" in reading.bodies)


async def test_a_notice_too_large_for_the_server_is_dropped_and_costs_no_connection(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    heard: list[bytes] = []
    await broker.listen("receipts.orders", heard.append)
    broker.notify("receipts.orders", b"x" * (1024 * 1024 + 1))
    broker.notify("receipts.orders", b"receipt")
    await until(lambda: bool(heard))
    assert heard == [b"receipt"]
    assert broker.connected

"""Test the broker port on the in-memory broker and on a real nats-server."""

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
    MessageTooLarge,
    Outgoing,
    Progress,
    Stored,
    Subscription,
)
from todoku.broker.nats import NatsBroker
from todoku.broker.partitions import Partition, partitions_of, with_slot
from todoku.broker.port import StartAfter

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
    """Start servers with special settings; they end with the test."""

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
    """Open connections to the host that end with the test."""

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


class RecordingConsumer:
    """Subscribe to a durable and record its deliveries."""

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
        start_after: StartAfter | None = None,
    ) -> "RecordingConsumer":
        consumer = cls()
        consumer.subscription = await broker.subscribe(
            durable, subjects, consumer.deliveries.extend, start_after=start_after
        )
        consumer.subscription.want(want)
        return consumer

    async def has(self, count: int) -> list[Delivery]:
        """Return the deliveries, as soon as there are `count` of them."""
        await until(lambda: len(self.deliveries) >= count)
        return list(self.deliveries)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]


def orders(count: int, first: int = 1) -> list[Outgoing]:
    return [Outgoing("orders.created", b"order %d" % n) for n in range(first, first + count)]


def bodies(count: int, first: int = 1) -> list[bytes]:
    return [message.body for message in orders(count, first)]


async def published(broker: Broker, messages: Sequence[Outgoing]) -> Stored:
    """Publish as the engine does: retry until the broker confirms."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await broker.publish(messages)
            except BrokerUnavailable:
                await asyncio.sleep(0.02)


async def progress_of(broker: Broker) -> Progress:
    """Return the progress, as soon as the broker answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await broker.progress([])
            except BrokerUnavailable:
                await asyncio.sleep(0.02)


async def acknowledged_up_to(broker: Broker, reader: str, sequence: int) -> None:
    """Wait until the consumer has acknowledged everything up to this sequence number."""
    async with asyncio.timeout(20):
        while True:
            if (await broker.progress([reader])).consumed.get(reader) == sequence:
                return
            await asyncio.sleep(0.02)


# Publishing and consumer


@pytest.mark.parametrize("count", [1, 5, 100, 2_500])
async def test_published_messages_are_delivered_completely_and_in_order(
    host: BrokerHost, connect: Connections, count: int
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=count)
    stored = await broker.publish(orders(count))
    deliveries = await consumer.has(count)
    assert stored.sequence == count
    assert [delivery.body for delivery in deliveries] == bodies(count)
    assert [delivery.sequence for delivery in deliveries] == list(range(1, count + 1))
    assert {delivery.subject for delivery in deliveries} == {"orders.created"}
    assert {delivery.attempt for delivery in deliveries} == {1}


async def test_sequence_numbers_continue_across_publishes(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    first = await broker.publish(orders(3))
    second = await broker.publish(orders(20, first=4))
    assert (first.sequence, second.sequence) == (3, 23)
    assert first.stream_epoch == second.stream_epoch


async def test_concurrent_publishes_get_their_own_acknowledgements(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    counts = [1, 30, 5, 12, 2]
    results = await asyncio.gather(*(broker.publish(orders(count)) for count in counts))
    assert max(stored.sequence for stored in results) == sum(counts)
    assert len({stored.sequence for stored in results}) == len(counts)


async def test_new_durable_starts_at_the_beginning_of_the_stream(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await broker.publish(orders(3))
    consumer = await RecordingConsumer.of(broker)
    await consumer.has(3)
    assert consumer.bodies == bodies(3)


async def test_new_durable_starts_behind_the_place_that_is_given(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    stored = await broker.publish(orders(3))
    place = StartAfter(stored.stream_epoch, 2)
    consumer = await RecordingConsumer.of(broker, start_after=place)
    await broker.publish(orders(1, first=4))
    deliveries = await consumer.has(2)
    assert consumer.bodies == bodies(2, first=3)

    consumer.subscription.ack(deliveries)
    await acknowledged_up_to(broker, "inventory", 4)


async def test_place_beyond_the_last_message_waits_for_the_next_one(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    stored = await broker.publish(orders(3))
    place = StartAfter(stored.stream_epoch, stored.sequence)
    consumer = await RecordingConsumer.of(broker, start_after=place)
    await broker.publish(orders(1, first=4))
    await consumer.has(1)
    assert consumer.bodies == bodies(1, first=4)


async def test_place_of_another_epoch_is_the_beginning(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await broker.publish(orders(3))
    consumer = await RecordingConsumer.of(broker, start_after=StartAfter("another", 2))
    await consumer.has(3)
    assert consumer.bodies == bodies(3)


async def test_existing_durable_keeps_its_place(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    stored = await broker.publish(orders(3))
    first = await RecordingConsumer.of(broker, start_after=StartAfter(stored.stream_epoch, 1))
    first.subscription.ack((await first.has(2))[:1])
    await acknowledged_up_to(broker, "inventory", 2)
    await first.subscription.stop()
    later = StartAfter(stored.stream_epoch, 3)
    second = await RecordingConsumer.of(broker, start_after=later)
    await broker.publish(orders(1, first=4))
    await until(lambda: bodies(1, first=4)[0] in second.bodies)


async def test_each_durable_gets_all_messages_on_its_subjects(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    inventory = await RecordingConsumer.of(broker, "inventory", ["orders.created", "shipping.*"])
    shipping = await RecordingConsumer.of(broker, "shipping", ["inventory.>"])
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


@pytest.mark.parametrize("count", [1, 40], ids=["singly", "in an atomic batch"])
async def test_deliveries_name_the_process_that_published(
    host: BrokerHost, connect: Connections, count: int
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish([Outgoing("orders.created", b"%d" % n, "1a2b") for n in range(count)])
    await broker.publish([Outgoing("orders.created", b"of nobody")])
    await consumer.has(count + 1)
    assert {delivery.owner for delivery in consumer.deliveries[:-1]} == {"1a2b"}
    assert consumer.deliveries[-1].owner == ""


# Credit


async def test_partitions_divide_what_is_published(host: BrokerHost, connect: Connections) -> None:
    """Slots are not seen by who reads; any subscription of the process acknowledges."""
    broker = await connect(host)
    readers = {
        each.durable: await RecordingConsumer.of(
            broker, each.durable, each.filters(["orders.created"])
        )
        for each in partitions_of("inventory", 2)
    }
    whole = await RecordingConsumer.of(
        broker, "shipping", Partition("shipping").filters(["orders.created"])
    )
    keys = [f"order {n}" for n in range(24)]
    await broker.publish(
        [Outgoing(with_slot("orders.created", key), key.encode()) for key in keys]
        + [Outgoing("orders.created", b"without")]
    )
    await whole.has(len(keys) + 1)
    await until(lambda: sum(len(each.deliveries) for each in readers.values()) == len(keys) + 1)

    first, second = readers.values()
    assert b"without" in first.bodies
    assert sorted(first.bodies + second.bodies) == sorted(whole.bodies)
    assert second.bodies
    for name, reader in readers.items():
        assert {(each.subject, each.durable) for each in reader.deliveries} == {
            ("orders.created", name)
        }
    first.subscription.ack(first.deliveries + second.deliveries)
    for durable in readers:
        await acknowledged_up_to(broker, durable, len(keys) + 1)


async def test_deliveries_never_exceed_the_credit(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=0)
    await broker.publish(orders(60))
    for allowed in (7, 8, 30):
        consumer.subscription.want(allowed - len(consumer.deliveries))
        await consumer.has(allowed)
        await broker.publish(orders(1))  # Long enough for one too many to arrive.
        await broker.progress(["inventory"])
        assert len(consumer.deliveries) == allowed
    consumer.subscription.want(33)
    await consumer.has(63)


async def test_credit_given_in_small_amounts_adds_up(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=1)
    for _ in range(49):
        consumer.subscription.want(1)
    await broker.publish(orders(80))
    await consumer.has(50)
    await broker.progress(["inventory"])
    assert len(consumer.deliveries) == 50


async def test_acknowledging_does_not_restore_credit(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=5)
    await broker.publish(orders(10))
    consumer.subscription.ack(await consumer.has(5))
    await acknowledged_up_to(broker, "inventory", 5)
    assert len(consumer.deliveries) == 5


# Acknowledging


async def test_only_unacknowledged_messages_are_redelivered(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(4))
    deliveries = await consumer.has(4)
    consumer.subscription.ack([deliveries[0], deliveries[2]])
    again = (await consumer.has(6))[4:]
    assert {(delivery.body, delivery.attempt) for delivery in again} == {
        (b"order 2", 2),
        (b"order 4", 2),
    }
    consumer.subscription.ack(again)
    await acknowledged_up_to(broker, "inventory", 4)


async def test_nak_redelivers_with_the_next_attempt(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(1))
    for attempt in (1, 2, 3):
        delivery = (await consumer.has(attempt))[-1]
        assert (delivery.attempt, delivery.sequence) == (attempt, 1)
        consumer.subscription.nak(delivery, 0)


async def test_nak_delays_its_message_and_no_other(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(1))
    [first] = await consumer.has(1)
    asked = asyncio.get_running_loop().time()
    consumer.subscription.nak(first, 0.4)
    await broker.publish(orders(1, first=2))
    second, again = (await consumer.has(3))[1:]
    assert (second.body, again.body) == (b"order 2", b"order 1")
    assert asyncio.get_running_loop().time() - asked >= 0.35


async def test_terminated_message_is_never_redelivered(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(2))
    poison, healthy = await consumer.has(2)
    consumer.subscription.term(poison)
    again = (await consumer.has(3))[2]
    assert again.body == healthy.body
    consumer.subscription.ack([again])
    await acknowledged_up_to(broker, "inventory", 2)
    assert len(consumer.deliveries) == 3


async def test_unacknowledged_messages_of_a_stopped_process_go_to_the_next(
    host: BrokerHost, connect: Connections
) -> None:
    first, second = await connect(host, "first"), await connect(host, "second")
    consumer = await RecordingConsumer.of(first)
    await first.publish(orders(3))
    deliveries = await consumer.has(3)
    consumer.subscription.ack(deliveries[:1])
    await acknowledged_up_to(second, "inventory", 1)
    await first.stop()
    successor = await RecordingConsumer.of(second)
    again = await successor.has(2)
    assert sorted(delivery.sequence for delivery in again) == [2, 3]
    assert {delivery.attempt for delivery in again} == {2}


async def test_processes_that_share_a_durable_share_its_messages(
    host: BrokerHost, connect: Connections
) -> None:
    one, other = await connect(host, "one"), await connect(host, "other")
    consumers = [
        await RecordingConsumer.of(one, want=10),
        await RecordingConsumer.of(other, want=10),
    ]
    await one.publish(orders(20))
    for consumer in consumers:
        consumer.subscription.ack(await consumer.has(10))
    assert sorted(consumers[0].bodies + consumers[1].bodies) == sorted(bodies(20))


async def test_stopped_subscription_gets_no_more_messages(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(1))
    consumer.subscription.ack(await consumer.has(1))
    await consumer.subscription.stop()
    await broker.publish(orders(5, first=2))
    successor = await RecordingConsumer.of(broker)
    await successor.has(5)
    assert consumer.bodies == bodies(1)


async def test_stopped_subscription_acknowledges_what_it_has_delivered(
    host: BrokerHost, connect: Connections
) -> None:
    """A process that stops finishes its work, and nobody has to do it once more."""
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(3))
    delivered = await consumer.has(3)
    await consumer.subscription.stop()
    consumer.subscription.ack(delivered)
    await acknowledged_up_to(broker, "inventory", 3)


# Progress


async def test_progress_reports_the_stream_and_each_consumer(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=3)
    await RecordingConsumer.of(broker, "shipping", ["inventory.>"])
    stored = await broker.publish(orders(5))
    deliveries = await consumer.has(3)
    consumer.subscription.ack([deliveries[0], deliveries[2]])
    await acknowledged_up_to(broker, "inventory", 1)
    progress = await broker.progress(["inventory", "shipping", "nobody"])
    assert progress.stream_epoch == stored.stream_epoch
    assert (progress.first_sequence, progress.last_sequence) == (1, 5)
    assert progress.consumed == {"inventory": 1, "shipping": 5}
    assert progress.acknowledged == {"inventory"}


async def test_consumer_with_nothing_pending_is_at_the_end_of_the_stream(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish([*orders(1), Outgoing("shipping.failed", b"not for it")])
    consumer.subscription.ack(await consumer.has(1))
    await acknowledged_up_to(broker, "inventory", 2)


# Server restarts and losses


async def test_publish_and_progress_raise_while_the_broker_is_unavailable(
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


async def test_deliveries_continue_after_a_restart_without_new_credit(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=10)
    before = await broker.publish(orders(4))
    consumer.subscription.ack(await consumer.has(4))
    await acknowledged_up_to(broker, "inventory", 4)
    await host.stop()
    await until(lambda: not broker.connected)
    await host.start()
    await published(broker, orders(8, first=5))
    await consumer.has(10)
    assert (await broker.progress([])).stream_epoch == before.stream_epoch
    assert b"order 5" in consumer.bodies
    assert (
        len(consumer.deliveries) == 10
    )  # Some are redelivered: acknowledgements are not synced to disk.


async def test_credit_and_subscriptions_made_while_unavailable_take_effect_later(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    early = await RecordingConsumer.of(broker, want=0)
    await broker.publish(orders(3))
    await host.stop()
    await until(lambda: not broker.connected)
    early.subscription.want(3)
    late = await RecordingConsumer.of(broker, "audit", want=3)
    await host.start()
    await early.has(3)
    await late.has(3)


async def test_wiped_disk_begins_a_new_stream_epoch_that_works(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    before = await broker.publish(orders(5))
    consumer.subscription.ack(await consumer.has(5))
    await host.wipe()
    await published(broker, orders(3, first=6))
    await consumer.has(8)
    after = await broker.publish(orders(1, first=9))
    assert after.stream_epoch != before.stream_epoch
    assert after.stream_epoch == (await broker.progress([])).stream_epoch
    again = (await consumer.has(9))[5:]
    assert [delivery.body for delivery in again] == bodies(4, first=6)
    consumer.subscription.ack(again)
    await acknowledged_up_to(broker, "inventory", after.sequence)


async def test_deleted_stream_is_created_again(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    before = await broker.publish(orders(2))
    await consumer.has(2)
    await host.delete_stream()
    await published(broker, orders(30, first=3))
    await consumer.has(32)
    assert consumer.bodies[2:] == bodies(30, first=3)
    assert (await broker.publish(orders(1))).stream_epoch != before.stream_epoch


async def test_acknowledgement_from_an_earlier_stream_epoch_has_no_effect(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(1))
    [old] = await consumer.has(1)
    await host.delete_stream()
    await published(broker, orders(1, first=2))
    await consumer.has(2)
    consumer.subscription.ack([old])
    again = (await consumer.has(3))[2]
    assert (again.body, again.attempt) == (b"order 2", 2)


async def test_rolled_back_disk_begins_a_new_stream_epoch(
    host: BrokerHost, connect: Connections
) -> None:
    broker, idle = await connect(host), await connect(host, "idle")
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(3))
    consumer.subscription.ack(await consumer.has(3))
    await acknowledged_up_to(broker, "inventory", 3)
    await host.save_disk()
    before = await published(broker, orders(2, first=4))
    await consumer.has(5)
    await host.roll_back()
    progress = await progress_of(broker)
    assert progress.last_sequence == 3
    assert progress.stream_epoch != before.stream_epoch
    assert progress.earlier_epochs == {before.stream_epoch: 3}
    assert (await progress_of(idle)).stream_epoch == progress.stream_epoch
    again = await broker.publish(orders(2, first=4))
    assert (again.stream_epoch, again.sequence) == (progress.stream_epoch, 5)
    await until(lambda: consumer.bodies.count(b"order 5") >= 2)


async def test_roll_back_is_noticed_after_others_have_published_beyond_it(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await host.save_disk()
    before = await published(broker, orders(2))
    await host.roll_back(before_reconnection=lambda: host.publish_from_outside(5))
    assert (await progress_of(broker)).stream_epoch != before.stream_epoch


async def test_rolling_back_twice_to_the_same_image_begins_two_epochs(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await host.save_disk()
    epochs = []
    for _ in range(3):
        epochs.append((await published(broker, orders(2))).stream_epoch)
        await host.roll_back()
        progress = await progress_of(broker)
    assert len({*epochs, progress.stream_epoch}) == 4


async def test_new_epoch_can_be_begun_on_other_evidence(
    host: BrokerHost, connect: Connections
) -> None:
    one, other = await connect(host, "one"), await connect(host, "other")
    before = await one.publish(orders(1))
    await one.begin_epoch(before.stream_epoch)
    after = await other.progress([])
    assert after.stream_epoch != before.stream_epoch
    assert after.earlier_epochs == {before.stream_epoch: 1}
    await other.begin_epoch(before.stream_epoch)
    assert (await other.progress([])).stream_epoch == after.stream_epoch
    assert (await one.publish(orders(1))).stream_epoch == after.stream_epoch


async def test_deleted_durable_is_created_again_and_starts_at_the_beginning(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(2))
    consumer.subscription.ack(await consumer.has(2))
    await acknowledged_up_to(broker, "inventory", 2)
    await host.delete_durable("inventory")
    await consumer.has(4)
    assert consumer.bodies[2:] == bodies(2)


async def test_consumers_continue_after_a_purge(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker, want=0)
    before = await broker.publish(orders(5))
    await host.purge()
    await acknowledged_up_to(broker, "inventory", 5)
    progress = await broker.progress([])
    assert (progress.first_sequence, progress.last_sequence) == (6, 5)
    consumer.subscription.want(10)
    after = await broker.publish(orders(1, first=6))
    assert (after.stream_epoch, after.sequence) == (before.stream_epoch, 6)
    await consumer.has(1)
    assert consumer.bodies == bodies(1, first=6)


async def test_first_after_finds_the_next_message_by_subjects(
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


async def test_forgotten_durable_starts_at_the_beginning_when_subscribed_again(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    consumer = await RecordingConsumer.of(broker)
    await broker.publish(orders(2))
    consumer.subscription.ack(await consumer.has(2))
    await acknowledged_up_to(broker, "inventory", 2)
    await consumer.subscription.stop()
    await broker.forget("inventory")
    assert "inventory" not in (await broker.progress(["inventory"])).consumed
    again = await RecordingConsumer.of(broker)
    assert [delivery.body for delivery in await again.has(2)] == bodies(2)
    await broker.forget("nobody")


# Notifications


async def test_notification_reaches_each_listener_and_one_of_each_group(
    host: BrokerHost, connect: Connections
) -> None:
    one, other = await connect(host, "one"), await connect(host, "other")
    alone: list[bytes] = []
    grouped: list[bytes] = []
    await one.listen("receipts.orders", alone.append)
    await one.listen("receipts.orders", grouped.append, group="orders")
    await other.listen("receipts.orders", grouped.append, group="orders")
    await other.listen("receipts.shipping", alone.append)
    await one.progress([])  # The response means that earlier requests were processed.
    await other.progress([])
    told = [b"receipt %d" % n for n in range(50)]
    for body in told:
        one.notify("receipts.orders", body)
    await until(lambda: len(alone) >= 50 and len(grouped) >= 50)
    assert alone == told
    assert sorted(grouped) == sorted(told)


async def test_listeners_work_again_after_a_restart(host: BrokerHost, connect: Connections) -> None:
    broker = await connect(host)
    received: list[bytes] = []
    await broker.listen("receipts.orders", received.append)
    await host.stop()
    await until(lambda: not broker.connected)
    await host.start()
    await until(lambda: broker.connected)
    broker.notify("receipts.orders", b"receipt")
    await until(lambda: received == [b"receipt"])


async def test_stopped_broker_is_not_connected_and_may_be_stopped_twice(
    host: BrokerHost, connect: Connections
) -> None:
    broker = await connect(host)
    await RecordingConsumer.of(broker)
    await broker.stop()
    await broker.stop()
    assert not broker.connected
    with pytest.raises(BrokerUnavailable):
        await broker.publish(orders(1))


# NATS only


async def test_prefixes_separate_installations_on_one_server(
    nats_host: NatsHost, connect: Connections
) -> None:
    plain = await connect(nats_host)
    staging = await connect(nats_host, prefix="staging", stream="STAGING")
    test = await connect(nats_host, prefix="test.eu.", stream="STAGING")
    consumers = [await RecordingConsumer.of(broker) for broker in (plain, staging, test)]
    received: list[bytes] = []
    await staging.listen("receipts.orders", received.append)
    await staging.progress([])
    for broker, name in ((plain, b"plain"), (staging, b"staging"), (test, b"test")):
        broker.notify("receipts.orders", name)
        await broker.publish([Outgoing("orders.created", name)] * 20)
    for consumer, name in zip(consumers, (b"plain", b"staging", b"test"), strict=True):
        consumer.subscription.ack(await consumer.has(20))
        assert set(consumer.bodies) == {name}
        assert {delivery.subject for delivery in consumer.deliveries} == {"orders.created"}
    await acknowledged_up_to(test, "inventory", 40)
    assert received == [b"staging"]


async def test_broker_may_start_before_its_server(servers: Servers) -> None:
    server = servers.new()
    server.start()
    server.stop()
    broker = NatsBroker(server.url)
    await broker.start()
    consumer = await RecordingConsumer.of(broker)
    await until(lambda: broker.problem is not None)
    assert not broker.connected
    await asyncio.to_thread(server.start)
    await published(broker, orders(1))
    await consumer.has(1)
    assert broker.problem is None
    await broker.stop()


async def test_server_without_jetstream_is_unsuitable_until_it_has_it(servers: Servers) -> None:
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


async def test_authorization_error_says_to_check_the_credentials(servers: Servers) -> None:
    server = servers.new(extra="authorization { user: todoku, password: secret }")
    server.start()
    broker = NatsBroker(server.url)
    await broker.start()
    await until(lambda: isinstance(broker.problem, BrokerUnsuitable))
    assert "check the credentials" in str(broker.problem)
    await broker.stop()


async def test_forbidden_publish_names_the_missing_permission(servers: Servers) -> None:
    permissions = 'publish: { deny: ["shipping.>"] }'
    user = f"{{ user: todoku, password: secret, permissions: {{ {permissions} }} }}"
    server = servers.new(extra=f"authorization {{ users: [ {user} ] }}")
    server.start()
    options = {"user": "todoku", "password": "secret"}
    broker = NatsBroker(server.url, options=options, publish_timeout_seconds=0.5)
    await broker.start()
    await published(broker, orders(1))
    with pytest.raises(BrokerUnsuitable, match=r"may not publish on shipping\.failed"):
        await broker.publish([Outgoing("shipping.failed", b"forbidden")])
    await broker.stop()


@pytest.mark.parametrize("count", [1, 50])
async def test_error_response_to_a_publish_is_raised_with_its_reason(
    nats_host: NatsHost, connect: Connections, count: int
) -> None:
    broker = await connect(nats_host)
    await nats_host.update_stream(sealed=True)
    with pytest.raises(BrokerUnavailable, match="sealed"):
        await broker.publish(orders(count))


async def test_disabled_atomic_publishing_is_enabled_again(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    before = await broker.publish(orders(1))
    await nats_host.update_stream(allow_atomic=False)
    after = await broker.publish(orders(50))
    assert (after.stream_epoch, after.sequence) == (before.stream_epoch, 51)


async def test_too_large_message_is_named_before_anything_is_sent_and_others_pass(
    tmp_path: Path, connect: Connections
) -> None:
    hosts = (
        MemoryHost(max_message_bytes=65_024),
        NatsHost(tmp_path, extra="max_payload: 65536"),
    )
    for host in hosts:
        broker = await connect(host)
        large = Outgoing("orders.created", b"x" * 65_025)
        with pytest.raises(MessageTooLarge, match="max_payload") as raised:
            await broker.publish([*orders(1), large, *orders(1)])
        assert raised.value.sizes == {1: 65_025}
        assert raised.value.bytes_max == broker.max_message_bytes == 65_024
        fits = Outgoing("orders.created", b"x" * 65_024)
        assert (await broker.publish([*orders(1), fits, *orders(1)])).sequence == 3
        await host.close()


async def test_large_messages_are_stored_in_several_batches(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    large = [Outgoing("orders.created", b"%d" % n + b"x" * 500_000) for n in range(24)]
    consumer = await RecordingConsumer.of(broker)
    assert (await broker.publish(large)).sequence == 24
    await consumer.has(24)
    assert consumer.bodies == [message.body for message in large]


async def test_publish_to_a_frozen_server_fails_in_time_and_stop_does_not_wait(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host, publish_timeout_seconds=0.3)
    consumer = await RecordingConsumer.of(broker)
    await published(broker, orders(1))
    await consumer.has(1)
    nats_host.server.freeze()
    with pytest.raises(BrokerUnavailable, match="did not answer"):
        await broker.publish(orders(1, first=2))
    async with asyncio.timeout(3):
        await broker.stop()
    nats_host.server.thaw()


async def test_consumer_continues_after_its_server_was_frozen(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host, publish_timeout_seconds=0.3)
    consumer = await RecordingConsumer.of(broker, want=5)
    await published(broker, orders(1))
    await consumer.has(1)
    nats_host.server.freeze()
    await until(lambda: not broker.connected)
    nats_host.server.thaw()
    await published(broker, orders(1, first=2))
    await until(lambda: b"order 2" in consumer.bodies)


async def test_too_large_notification_is_dropped_and_the_connection_stays(
    nats_host: NatsHost, connect: Connections
) -> None:
    broker = await connect(nats_host)
    received: list[bytes] = []
    await broker.listen("receipts.orders", received.append)
    broker.notify("receipts.orders", b"x" * (1024 * 1024 + 1))
    broker.notify("receipts.orders", b"receipt")
    await until(lambda: bool(received))
    assert received == [b"receipt"]
    assert broker.connected

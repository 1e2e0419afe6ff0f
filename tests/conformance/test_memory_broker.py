"""Test the in-memory broker's deterministic fault injection."""

import asyncio
import selectors
from collections.abc import Coroutine, Sequence
from random import Random
from typing import Any

import pytest

from todoku.broker import BrokerUnavailable, Delivery, Outgoing, Subscription
from todoku.broker.memory import Hostility, MemoryBroker, MemorySession

MESSAGES = [Outgoing("orders.created", b"order %d" % n) for n in range(40)]


class LeapingClock(selectors.DefaultSelector):
    """Advance the time instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    """Run on an event loop with a virtual clock."""
    clock = LeapingClock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(asyncio.wait_for(scenario, 3600))


class RecordingConsumer:
    """Record deliveries, and acknowledge them if `acks`."""

    def __init__(self, *, acks: bool = True) -> None:
        self.deliveries: list[Delivery] = []
        self.acks = acks
        self.subscription: Subscription

    @classmethod
    async def of(
        cls, session: MemorySession, *, want: int = 1000, acks: bool = True
    ) -> "RecordingConsumer":
        consumer = cls(acks=acks)
        consumer.subscription = await session.subscribe("inventory", ["orders.>"], consumer.deliver)
        consumer.subscription.want(want)
        return consumer

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries += deliveries
        if self.acks:
            self.subscription.ack(deliveries)

    @property
    def sequences(self) -> list[int]:
        return [delivery.sequence for delivery in self.deliveries]


async def started(broker: MemoryBroker, name: str = "test") -> MemorySession:
    session = broker.session(name)
    await session.start()
    return session


async def acknowledged(session: MemorySession) -> None:
    """Wait until the consumer has acknowledged the whole stream."""
    while True:
        progress = await session.progress(["inventory"])
        if progress.consumed["inventory"] == progress.last_sequence:
            return
        await asyncio.sleep(1)


@pytest.mark.parametrize(
    "fault", ["drop_delivery", "duplicate_delivery", "delay_delivery", "reorder_deliveries"]
)
def test_delivery_faults_are_counted_and_every_message_still_arrives(fault: str) -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), **{fault: 0.5})  # type: ignore[arg-type]
        broker = MemoryBroker(hostility=hostility)
        session = await started(broker)
        consumer = await RecordingConsumer.of(session)
        for message in MESSAGES:
            await session.publish([message, message])
        await acknowledged(session)
        assert set(consumer.sequences) == set(range(1, 81))
        assert consumer.sequences != list(range(1, 81))
        assert hostility.injected[fault] > 10

    run(scenario())


def test_lost_acknowledgement_costs_one_redelivery() -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), drop_ack=1.0)
        session = await started(MemoryBroker(hostility=hostility))
        consumer = await RecordingConsumer.of(session)
        await session.publish(MESSAGES[:1])
        await asyncio.sleep(1)
        hostility.drop_ack = 0.0
        await acknowledged(session)
        assert [delivery.attempt for delivery in consumer.deliveries] == [1, 2]
        assert hostility.injected["drop_ack"] == 1

    run(scenario())


def test_duplicates_never_exceed_the_credit() -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), duplicate_delivery=1.0)
        session = await started(MemoryBroker(hostility=hostility))
        consumer = await RecordingConsumer.of(session, want=5)
        await session.publish(MESSAGES)
        await asyncio.sleep(100)
        assert consumer.sequences == [1, 1, 2, 2, 3]

    run(scenario())


def test_unanswered_publish_may_have_stored_a_first_part() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(hostility=Hostility(Random(1), lose_answer=1.0))
        session = await started(broker)
        with pytest.raises(BrokerUnavailable):
            await session.publish(MESSAGES)
        assert list(broker.messages.values()) == MESSAGES[: broker.last_sequence]
        assert 0 < broker.last_sequence < len(MESSAGES)

    run(scenario())


def test_refused_publish_stores_nothing() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(hostility=Hostility(Random(1), refuse_publish=1.0))
        session = await started(broker)
        with pytest.raises(BrokerUnavailable):
            await session.publish(MESSAGES)
        assert broker.messages == {}

    run(scenario())


@pytest.mark.parametrize(
    ("fault", "times"), [("drop_notify", 0), ("delay_notify", 1), ("duplicate_notify", 2)]
)
def test_notifications_can_be_lost_late_or_duplicated(fault: str, times: int) -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), **{fault: 1.0})  # type: ignore[arg-type]
        session = await started(MemoryBroker(hostility=hostility))
        received: list[bytes] = []
        await session.listen("receipts.orders", received.append)
        session.notify("receipts.orders", b"receipt")
        assert received == []
        await asyncio.sleep(hostility.delay_seconds_max)
        assert received == [b"receipt"] * times
        assert hostility.injected[fault] == 1

    run(scenario())


def test_killed_process_has_no_effect_and_another_takes_over() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        doomed, successor = await started(broker, "doomed"), await started(broker, "successor")
        first = await RecordingConsumer.of(doomed, acks=False)
        received: list[bytes] = []
        await doomed.listen("receipts.orders", received.append)
        await successor.publish(MESSAGES[:2])
        await asyncio.sleep(1)
        doomed.kill()
        first.subscription.ack(first.deliveries)
        first.subscription.want(10)
        doomed.notify("receipts.orders", b"from beyond")
        with pytest.raises(BrokerUnavailable):
            await doomed.publish(MESSAGES)
        second = await RecordingConsumer.of(successor)
        await acknowledged(successor)
        assert [(d.sequence, d.attempt) for d in second.deliveries] == [(1, 2), (2, 2)]
        assert (first.sequences, received, broker.last_sequence) == ([1, 2], [], 2)

    run(scenario())


def test_full_stream_drops_the_oldest_messages_and_consumers_continue() -> None:
    async def scenario() -> None:
        session = await started(MemoryBroker(messages_max=10))
        consumer = await RecordingConsumer.of(session, want=0)
        await session.publish(MESSAGES)
        progress = await session.progress(["inventory"])
        assert (progress.first_sequence, progress.last_sequence) == (31, 40)
        assert progress.consumed == {"inventory": 30}
        consumer.subscription.want(100)
        await acknowledged(session)
        assert consumer.sequences == list(range(31, 41))

    run(scenario())


def test_the_same_seed_gives_the_same_run() -> None:
    async def scenario(seed: int) -> list[tuple[float, int, int]]:
        hostility = Hostility(
            Random(seed),
            drop_delivery=0.3,
            duplicate_delivery=0.3,
            delay_delivery=0.3,
            reorder_deliveries=0.3,
            drop_ack=0.3,
        )
        session = await started(MemoryBroker(hostility=hostility))
        trace: list[tuple[float, int, int]] = []
        now = asyncio.get_running_loop().time

        def deliver(deliveries: Sequence[Delivery]) -> None:
            trace.extend((now(), delivery.sequence, delivery.attempt) for delivery in deliveries)
            subscription.ack(deliveries)

        subscription = await session.subscribe("inventory", ["orders.>"], deliver)
        subscription.want(1000)
        await session.publish(MESSAGES)
        await acknowledged(session)
        return trace

    assert run(scenario(1)) == run(scenario(1))
    assert run(scenario(1)) != run(scenario(2))

"""What the in-memory broker can do beyond the port: misbehave on purpose, and always in the same way."""

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
    """Instead of waiting, lets the time pass at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


def run(scenario: Coroutine[Any, Any, Any]) -> Any:
    """Run on a loop whose hours take no time."""
    clock = LeapingClock()
    loop = asyncio.SelectorEventLoop(clock)
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(asyncio.wait_for(scenario, 3600))


class Reader:
    """A process that acks whatever it is given, as far as it is told to."""

    def __init__(self, *, acks: bool = True) -> None:
        self.deliveries: list[Delivery] = []
        self.acks = acks
        self.subscription: Subscription

    @classmethod
    async def of(cls, session: MemorySession, *, want: int = 1000, acks: bool = True) -> "Reader":
        reader = cls(acks=acks)
        reader.subscription = await session.subscribe("inventory", ["orders.>"], reader.deliver)
        reader.subscription.want(want)
        return reader

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


async def settled(session: MemorySession) -> None:
    """Wait until the reader has settled the whole stream."""
    while True:
        progress = await session.progress(["inventory"])
        if progress.consumed["inventory"] == progress.last_sequence:
            return
        await asyncio.sleep(1)


@pytest.mark.parametrize(
    "fault", ["drop_delivery", "duplicate_delivery", "delay_delivery", "reorder_deliveries"]
)
def test_a_fault_on_the_way_is_counted_and_everything_arrives_all_the_same(fault: str) -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), **{fault: 0.5})  # type: ignore[arg-type]
        broker = MemoryBroker(hostility=hostility)
        session = await started(broker)
        reader = await Reader.of(session)
        for message in MESSAGES:
            await session.publish([message, message])
        await settled(session)
        assert set(reader.sequences) == set(range(1, 81))
        assert reader.sequences != list(range(1, 81))
        assert hostility.injected[fault] > 10

    run(scenario())


def test_a_lost_ack_costs_one_repeat() -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), drop_ack=1.0)
        session = await started(MemoryBroker(hostility=hostility))
        reader = await Reader.of(session)
        await session.publish(MESSAGES[:1])
        await asyncio.sleep(1)
        hostility.drop_ack = 0.0
        await settled(session)
        assert [delivery.attempt for delivery in reader.deliveries] == [1, 2]
        assert hostility.injected["drop_ack"] == 1

    run(scenario())


def test_duplicates_never_exceed_the_credit() -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), duplicate_delivery=1.0)
        session = await started(MemoryBroker(hostility=hostility))
        reader = await Reader.of(session, want=5)
        await session.publish(MESSAGES)
        await asyncio.sleep(100)
        assert reader.sequences == [1, 1, 2, 2, 3]

    run(scenario())


def test_an_unanswered_publish_may_have_stored_a_first_part() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(hostility=Hostility(Random(1), lose_answer=1.0))
        session = await started(broker)
        with pytest.raises(BrokerUnavailable):
            await session.publish(MESSAGES)
        assert list(broker.messages.values()) == MESSAGES[: broker.last_sequence]
        assert 0 < broker.last_sequence < len(MESSAGES)

    run(scenario())


def test_a_refused_publish_has_stored_nothing() -> None:
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
def test_what_is_notified_can_be_lost_late_or_doubled(fault: str, times: int) -> None:
    async def scenario() -> None:
        hostility = Hostility(Random(1), **{fault: 1.0})  # type: ignore[arg-type]
        session = await started(MemoryBroker(hostility=hostility))
        heard: list[bytes] = []
        await session.listen("receipts.orders", heard.append)
        session.notify("receipts.orders", b"receipt")
        assert heard == []
        await asyncio.sleep(hostility.delay_seconds_max)
        assert heard == [b"receipt"] * times
        assert hostility.injected[fault] == 1

    run(scenario())


def test_a_killed_process_has_no_more_effect_and_another_takes_over() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        doomed, successor = await started(broker, "doomed"), await started(broker, "successor")
        first = await Reader.of(doomed, acks=False)
        heard: list[bytes] = []
        await doomed.listen("receipts.orders", heard.append)
        await successor.publish(MESSAGES[:2])
        await asyncio.sleep(1)
        doomed.kill()
        first.subscription.ack(first.deliveries)
        first.subscription.want(10)
        doomed.notify("receipts.orders", b"from beyond")
        with pytest.raises(BrokerUnavailable):
            await doomed.publish(MESSAGES)
        second = await Reader.of(successor)
        await settled(successor)
        assert [(d.sequence, d.attempt) for d in second.deliveries] == [(1, 2), (2, 2)]
        assert (first.sequences, heard, broker.last_sequence) == ([1, 2], [], 2)

    run(scenario())


def test_a_full_stream_forgets_its_oldest_and_readers_go_on_behind_them() -> None:
    async def scenario() -> None:
        session = await started(MemoryBroker(messages_max=10))
        reader = await Reader.of(session, want=0)
        await session.publish(MESSAGES)
        progress = await session.progress(["inventory"])
        assert (progress.first_sequence, progress.last_sequence) == (31, 40)
        assert progress.consumed == {"inventory": 30}
        reader.subscription.want(100)
        await settled(session)
        assert reader.sequences == list(range(31, 41))

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
        await settled(session)
        return trace

    assert run(scenario(1)) == run(scenario(1))
    assert run(scenario(1)) != run(scenario(2))

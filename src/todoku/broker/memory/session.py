"""Connect a process to the in-memory broker."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from todoku.broker.history import SequenceHistory
from todoku.broker.memory.consumer import MemoryConsumer
from todoku.broker.memory.subjects import matches
from todoku.broker.port import (
    BrokerUnavailable,
    Delivery,
    MessageTooLarge,
    Outgoing,
    Progress,
    StartAfter,
    Stored,
)

if TYPE_CHECKING:
    from todoku.broker.memory.server import MemoryBroker


@dataclass(slots=True)
class MemoryListener:
    """Hold a callback for notifications on a subject."""

    session: "MemorySession"
    subject: str
    group: str | None
    on_message: Callable[[bytes], None]

    def receive(self, body: bytes) -> None:
        if self.session.connected:
            self.on_message(body)


class MemorySession:
    """Implement `todoku.broker.Broker`: one process's connection to a `MemoryBroker`."""

    def __init__(self, broker: "MemoryBroker", name: str) -> None:
        self.broker = broker
        self.name = name
        self.readers: list[MemoryConsumer] = []
        self.listeners: list[MemoryListener] = []
        self._alive = False
        self._history = SequenceHistory()
        self._published: tuple[str, int, Outgoing] | None = None

    @property
    def connected(self) -> bool:
        return self._alive and self.broker.running

    @property
    def max_message_bytes(self) -> int | None:
        return self.broker.max_message_bytes

    @property
    def configuration_problems(self) -> Sequence[str]:
        return ()

    @property
    def configuration_corrections(self) -> int:
        return 0

    async def start(self) -> None:
        self._alive = True
        self.broker.join(self)
        if self.broker.running:
            for reader in self.readers:
                self.broker.attach(reader)

    async def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        """End as by `kill -9`: nothing done with this session has an effect any more."""
        self._alive = False
        self.broker.leave(self)
        for reader in list(self.readers):
            reader.end()

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        broker = self.broker
        self._require_connection("publish")
        self._refuse_too_large(messages)
        self._detect_roll_back()
        if broker.hostility.strikes("refuse_publish"):
            raise BrokerUnavailable("the broker refused to store the messages")
        stream_epoch = broker.stream_epoch
        if broker.hostility.strikes("lose_answer"):
            broker.store(messages[: broker.hostility.random.randint(1, len(messages))])
            await asyncio.sleep(broker.publish_timeout_seconds)
            raise BrokerUnavailable("the broker did not answer in time")
        sequence = broker.store(messages)
        await asyncio.sleep(0)  # The answer is in flight, and may be lost with the broker.
        self._require_connection("publish")
        self._history.note(stream_epoch, sequence)
        self._published = stream_epoch, sequence, messages[-1]
        return Stored(stream_epoch=stream_epoch, sequence=sequence)

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        *,
        start_after: StartAfter | None = None,
    ) -> MemoryConsumer:
        reader = MemoryConsumer(self, durable, subjects, deliver, start_after)
        self.readers.append(reader)
        if self.connected:
            self.broker.attach(reader)
        return reader

    async def progress(self, readers: Sequence[str]) -> Progress:
        self._require_connection("progress")
        self._detect_roll_back()
        consumed = {reader: self.broker.consumed(reader) for reader in readers}
        return Progress(
            stream_epoch=self.broker.stream_epoch,
            first_sequence=self.broker.first_sequence,
            last_sequence=self.broker.last_sequence,
            consumed={reader: place for reader, place in consumed.items() if place is not None},
            acknowledged=frozenset(filter(self.broker.has_acknowledged, readers)),
            earlier_epochs=self.broker.earlier_epochs,
        )

    async def begin_epoch(self, ended: str) -> None:
        self._require_connection("new epoch")
        if self.broker.stream_epoch == ended:
            self.broker.begin_epoch()

    def _refuse_too_large(self, messages: Sequence[Outgoing]) -> None:
        bytes_max = self.broker.max_message_bytes
        if bytes_max is None:
            return
        sizes = {n: len(m.body) for n, m in enumerate(messages) if len(m.body) > bytes_max}
        if sizes:
            raise MessageTooLarge(sizes, bytes_max)

    def _detect_roll_back(self) -> None:
        """Begin a new epoch if the stream no longer holds what it held under its epoch before."""
        broker = self.broker
        behind = broker.last_sequence < self._history.highest(broker.stream_epoch)
        if behind or self._is_replaced():
            broker.begin_epoch()
        self._history.note(broker.stream_epoch, broker.last_sequence)

    def _is_replaced(self) -> bool:
        """Return whether another message has the sequence number of the one published last."""
        if self._published is None or self._published[0] != self.broker.stream_epoch:
            return False
        _, sequence, message = self._published
        return self.broker.messages.get(sequence, message) is not message

    async def first_after(self, sequence: int, subjects: Sequence[str]) -> int | None:
        self._require_connection("look-up")
        for place, message in self.broker.messages.items():
            if place > sequence and any(matches(s, message.subject) for s in subjects):
                return place
        return None

    async def forget(self, durable: str) -> None:
        self._require_connection("deletion")
        if self.broker.consumed(durable) is not None:
            self.broker.delete_durable(durable)

    def notify(self, subject: str, body: bytes) -> None:
        if self.connected:
            self.broker.notify(subject, body)

    async def listen(
        self, subject: str, on_message: Callable[[bytes], None], *, group: str | None = None
    ) -> None:
        self.listeners.append(MemoryListener(self, subject, group, on_message))

    def _require_connection(self, operation: str) -> None:
        if not self.connected:
            raise BrokerUnavailable(f"the broker is unavailable: no {operation}")

"""Hold the stream, its durables and the connections: the server of the in-memory broker."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from todoku.broker.history import with_ended
from todoku.broker.memory.consumer import MemoryConsumer
from todoku.broker.memory.durable import Durable, DurableImage
from todoku.broker.memory.faults import Hostility, call_after
from todoku.broker.memory.session import MemoryListener, MemorySession
from todoku.broker.memory.subjects import matches
from todoku.broker.port import Outgoing


@dataclass(frozen=True, slots=True)
class DiskImage:
    """Hold all that the server has on its disk at one time."""

    stream_epoch: str
    last_sequence: int
    messages: Mapping[int, Outgoing]
    durables: Mapping[str, DurableImage]
    earlier_epochs: Mapping[str, int]


class MemoryBroker:
    """Simulate the server: one stream, its durable consumers, and listeners.

    With `messages_max` the oldest messages are dropped when there are more. A message of more than
    `max_message_bytes` is refused, as by a NATS server's `max_payload`.
    """

    def __init__(
        self,
        *,
        ack_wait_seconds: float = 30.0,
        publish_timeout_seconds: float = 5.0,
        messages_max: int | None = None,
        max_message_bytes: int | None = None,
        hostility: Hostility | None = None,
    ) -> None:
        self.max_message_bytes = max_message_bytes
        self.ack_wait_seconds = ack_wait_seconds
        self.publish_timeout_seconds = publish_timeout_seconds
        self.hostility = hostility or Hostility(Random(0))
        self.running = True
        self.messages: dict[int, Outgoing] = {}
        self.last_sequence = 0
        self._messages_max = messages_max
        self.stream_epoch = "memory@1"
        self.earlier_epochs: Mapping[str, int] = {}
        self._epochs = 1
        self._durables: dict[str, Durable] = {}
        self._sessions: list[MemorySession] = []
        self._turns: Counter[tuple[str, str]] = Counter()

    @property
    def first_sequence(self) -> int:
        return next(iter(self.messages), self.last_sequence + 1)

    def session(self, name: str) -> MemorySession:
        """Make a process's connection; it does nothing before its `start`."""
        return MemorySession(self, name)

    def start(self) -> None:
        """Start again, with what was on the disk."""
        self.running = True
        self._attach_all()

    def stop(self) -> None:
        """Stop. Messages in flight are lost, and redelivered after the ack wait."""
        self.running = False
        self._cut_all()

    def wipe(self) -> None:
        """Lose the stream and its durables. A new stream epoch begins."""
        self._cut_all()
        for durable in self._durables.values():
            durable.close()
        self._durables.clear()
        self.messages.clear()
        self.last_sequence = 0
        self.begin_epoch()
        self.earlier_epochs = {}
        if self.running:
            self._attach_all()

    def begin_epoch(self) -> None:
        """Give the stream an epoch that it never had before."""
        self.earlier_epochs = with_ended(self.earlier_epochs, self.stream_epoch, self.last_sequence)
        self._epochs += 1
        self.stream_epoch = f"memory@{self._epochs}"

    def image(self) -> DiskImage:
        """Copy the disk."""
        return DiskImage(
            self.stream_epoch,
            self.last_sequence,
            dict(self.messages),
            {name: durable.image() for name, durable in self._durables.items()},
            self.earlier_epochs,
        )

    def roll_back(self, image: DiskImage) -> None:
        """Restore an older image of the disk, as a restored snapshot of a machine does."""
        self._cut_all()
        for durable in self._durables.values():
            durable.close()
        self.stream_epoch, self.last_sequence = image.stream_epoch, image.last_sequence
        self.earlier_epochs = image.earlier_epochs
        self.messages = dict(image.messages)
        self._durables = {name: Durable(self, durable) for name, durable in image.durables.items()}
        if self.running:
            self._attach_all()

    def purge(self) -> None:
        """Drop all messages; the stream and its sequence continue."""
        for sequence in list(self.messages):
            self._drop(sequence)

    def delete_durable(self, name: str) -> None:
        """Lose one durable consumer and its position."""
        durable = self._durables.pop(name)
        durable.close()
        for reader in durable.readers:
            reader.cut()
            self.attach(reader)

    def store(self, messages: Sequence[Outgoing]) -> int:
        for message in messages:
            self.last_sequence += 1
            self.messages[self.last_sequence] = message
        if self._messages_max is not None:
            while len(self.messages) > self._messages_max:
                self._drop(self.first_sequence)
        for durable in self._durables.values():
            durable.pump()
        return self.last_sequence

    def attach(self, reader: MemoryConsumer) -> None:
        """Feed a consumer from its durable, which is created if absent."""
        durable = self._durables.get(reader.durable_name)
        if durable is None:
            image = DurableImage((), self._start_of(reader), {})
            durable = self._durables[reader.durable_name] = Durable(self, image)
        durable.add(reader)

    def _start_of(self, reader: MemoryConsumer) -> int:
        start = reader.start_after
        return start.sequence + 1 if start and start.stream_epoch == self.stream_epoch else 1

    def consumed(self, reader: str) -> int | None:
        durable = self._durables.get(reader)
        return None if durable is None else durable.consumed()

    def has_acknowledged(self, reader: str) -> bool:
        durable = self._durables.get(reader)
        return durable is not None and durable.acknowledged

    def join(self, session: MemorySession) -> None:
        self._sessions.append(session)

    def leave(self, session: MemorySession) -> None:
        if session in self._sessions:
            self._sessions.remove(session)

    def notify(self, subject: str, body: bytes) -> None:
        """Call each listener without a group, and one of each group in turn."""
        groups: dict[str, list[MemoryListener]] = {}
        for session in self._sessions:
            for listener in session.listeners:
                if not matches(listener.subject, subject):
                    continue
                if listener.group is None:
                    self._notify(listener, body)
                else:
                    groups.setdefault(listener.group, []).append(listener)
        for group, listeners in groups.items():
            turn = self._turns[group, subject]
            self._turns[group, subject] += 1
            self._notify(listeners[turn % len(listeners)], body)

    def _notify(self, listener: MemoryListener, body: bytes) -> None:
        hostility = self.hostility
        if hostility.strikes("drop_notify"):
            return
        for _ in range(2 if hostility.strikes("duplicate_notify") else 1):
            call_after(hostility.delay_seconds("delay_notify"), listener.receive, body)

    def _drop(self, sequence: int) -> None:
        del self.messages[sequence]
        for durable in self._durables.values():
            durable.drop(sequence)

    def _cut_all(self) -> None:
        for session in self._sessions:
            for reader in session.readers:
                reader.cut()

    def _attach_all(self) -> None:
        for session in self._sessions:
            for reader in session.readers:
                self.attach(reader)

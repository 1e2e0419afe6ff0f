"""Implement the broker port in memory, for tests and simulations, with optional fault injection.

`MemoryBroker` is the server, which outlives the processes; `session` makes a process's connection
to it. Time is the running event loop's, so a loop with a virtual clock drives it. All randomness comes
from the `random.Random` given to `Hostility`, so the same seed gives the same run.
"""

import asyncio
import heapq
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random

from todoku.broker.history import SequenceHistory
from todoku.broker.port import (
    BrokerUnavailable,
    Delivery,
    MessageTooLarge,
    Outgoing,
    Progress,
    StartAfter,
    Stored,
)


@dataclass
class Hostility:
    """Configure fault injection: a probability from 0 to 1 for each fault, and a count of those injected.

    A lost delivery is redelivered after the ack wait, as in JetStream. `lose_answer` stores all or a
    first part of what was published, and then does not answer. `delay_seconds_max` bounds each delay.
    """

    random: Random
    drop_delivery: float = 0.0
    duplicate_delivery: float = 0.0
    delay_delivery: float = 0.0
    reorder_deliveries: float = 0.0
    drop_ack: float = 0.0
    drop_notify: float = 0.0
    duplicate_notify: float = 0.0
    delay_notify: float = 0.0
    lose_answer: float = 0.0
    refuse_publish: float = 0.0
    delay_seconds_max: float = 1.0
    injected: Counter[str] = field(default_factory=Counter)

    def strikes(self, fault: str) -> bool:
        """Return whether this fault happens now, and count it."""
        probability: float = getattr(self, fault)
        if probability == 0.0 or self.random.random() >= probability:
            return False
        self.injected[fault] += 1
        return True

    def delay_seconds(self, fault: str) -> float:
        """Return a delay: 0 unless the fault strikes."""
        return self.random.uniform(0, self.delay_seconds_max) if self.strikes(fault) else 0.0


@dataclass(frozen=True, slots=True)
class DurableImage:
    """Hold a durable consumer's state: the attempts of each unacknowledged message by sequence."""

    subjects: tuple[str, ...]
    next_sequence: int
    attempts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class DiskImage:
    """Hold all that the server has on its disk at one time."""

    stream_epoch: str
    last_sequence: int
    messages: Mapping[int, Outgoing]
    durables: Mapping[str, DurableImage]


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
        self._epochs = 1
        self._durables: dict[str, _Durable] = {}
        self._sessions: list[MemorySession] = []
        self._turns: Counter[tuple[str, str]] = Counter()

    @property
    def first_sequence(self) -> int:
        return next(iter(self.messages), self.last_sequence + 1)

    def session(self, name: str) -> "MemorySession":
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
        if self.running:
            self._attach_all()

    def begin_epoch(self) -> None:
        """Give the stream an epoch that it never had before."""
        self._epochs += 1
        self.stream_epoch = f"memory@{self._epochs}"

    def image(self) -> DiskImage:
        """Copy the disk."""
        return DiskImage(
            self.stream_epoch,
            self.last_sequence,
            dict(self.messages),
            {name: durable.image() for name, durable in self._durables.items()},
        )

    def roll_back(self, image: DiskImage) -> None:
        """Restore an older image of the disk, as a restored snapshot of a machine does."""
        self._cut_all()
        for durable in self._durables.values():
            durable.close()
        self.stream_epoch, self.last_sequence = image.stream_epoch, image.last_sequence
        self.messages = dict(image.messages)
        self._durables = {name: _Durable(self, durable) for name, durable in image.durables.items()}
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

    def attach(self, reader: "MemoryConsumer") -> None:
        """Feed a consumer from its durable, which is created if absent."""
        durable = self._durables.get(reader.durable_name)
        if durable is None:
            image = DurableImage((), self._start_of(reader), {})
            durable = self._durables[reader.durable_name] = _Durable(self, image)
        durable.add(reader)

    def _start_of(self, reader: "MemoryConsumer") -> int:
        start = reader.start_after
        return start.sequence + 1 if start and start.stream_epoch == self.stream_epoch else 1

    def consumed(self, reader: str) -> int | None:
        durable = self._durables.get(reader)
        return None if durable is None else durable.consumed()

    def join(self, session: "MemorySession") -> None:
        self._sessions.append(session)

    def leave(self, session: "MemorySession") -> None:
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

    def _notify(self, listener: "MemoryListener", body: bytes) -> None:
        hostility = self.hostility
        if hostility.strikes("drop_notify"):
            return
        for _ in range(2 if hostility.strikes("duplicate_notify") else 1):
            _after(hostility.delay_seconds("delay_notify"), listener.receive, body)

    def _drop(self, sequence: int) -> None:
        del self.messages[sequence]
        for durable in self._durables.values():
            durable.acknowledge(sequence)

    def _cut_all(self) -> None:
        for session in self._sessions:
            for reader in session.readers:
                reader.cut()

    def _attach_all(self) -> None:
        for session in self._sessions:
            for reader in session.readers:
                self.attach(reader)


@dataclass(slots=True)
class _Unacknowledged:
    """Hold the attempts of a delivered message, and when it is due for redelivery."""

    attempt: int
    due: float


class _Durable:
    """Hold the server's state of a durable consumer: what was delivered, and who has credit."""

    def __init__(self, broker: MemoryBroker, image: DurableImage | None = None) -> None:
        image = image or DurableImage((), 1, {})
        self.readers: list[MemoryConsumer] = []
        self._broker = broker
        self._subjects = list(image.subjects)
        self._next = image.next_sequence
        self._unacknowledged = {  # In the order of the stream.
            sequence: _Unacknowledged(attempt, due=0.0)
            for sequence, attempt in image.attempts.items()
        }
        self._again: deque[int] = deque(self._unacknowledged)
        self._due: list[tuple[float, int]] = []  # A heap; settled ones stay until they come up.
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0

    def image(self) -> DurableImage:
        attempts = {sequence: u.attempt for sequence, u in self._unacknowledged.items()}
        return DurableImage(tuple(self._subjects), self._next, attempts)

    def add(self, reader: "MemoryConsumer") -> None:
        self._subjects += [s for s in reader.subjects if s not in self._subjects]
        if reader not in self.readers:
            self.readers.append(reader)
        reader.durable = self
        self.pump()

    def remove(self, reader: "MemoryConsumer") -> None:
        self.readers.remove(reader)

    def close(self) -> None:
        """End: acknowledgements of messages from this durable have no effect any more."""
        self._unacknowledged.clear()
        self._again.clear()
        self._disarm()

    def pump(self) -> None:
        """Deliver what is due, in turn to the consumers with credit."""
        if not self._broker.running:
            return
        while (reader := self._next_reader()) and (sequence := self._next_sequence()):
            self._send(reader, sequence)
        self._arm()

    def acknowledge(self, sequence: int) -> None:
        if self._unacknowledged.pop(sequence, None) and not self._unacknowledged:
            self._disarm()

    def postpone(self, sequence: int, delay_seconds: float) -> None:
        unacknowledged = self._unacknowledged.get(sequence)
        if unacknowledged is None:
            return
        self._expect(sequence, unacknowledged, delay_seconds)
        self._arm()

    def consumed(self) -> int:
        self._skip_unwanted()
        return next(iter(self._unacknowledged), self._next) - 1

    def _next_reader(self) -> "MemoryConsumer | None":
        for _ in self.readers:
            self._turn = (self._turn + 1) % len(self.readers)
            reader = self.readers[self._turn]
            if reader.room > 0:
                return reader
        return None

    def _next_sequence(self) -> int:
        """Return the sequence number of the next message to deliver, 0 if there is none."""
        now = asyncio.get_running_loop().time()
        while self._again:
            sequence = self._again.popleft()
            unacknowledged = self._unacknowledged.get(sequence)
            if unacknowledged is not None and unacknowledged.due <= now:
                return sequence
        self._skip_unwanted()
        if self._next > self._broker.last_sequence:
            return 0
        self._next += 1
        return self._next - 1

    def _skip_unwanted(self) -> None:
        self._next = max(self._next, self._broker.first_sequence)
        while self._next <= self._broker.last_sequence and not self._wants(self._next):
            self._next += 1

    def _wants(self, sequence: int) -> bool:
        subject = self._broker.messages[sequence].subject
        return any(matches(pattern, subject) for pattern in self._subjects)

    def _send(self, reader: "MemoryConsumer", sequence: int) -> None:
        unacknowledged = self._unacknowledged.setdefault(
            sequence, _Unacknowledged(attempt=0, due=0.0)
        )
        unacknowledged.attempt += 1
        self._expect(sequence, unacknowledged, self._broker.ack_wait_seconds)
        message = self._broker.messages[sequence]
        delivery = Delivery(
            subject=message.subject,
            body=message.body,
            attempt=unacknowledged.attempt,
            sequence=sequence,
            token=self,
            stream_epoch=self._broker.stream_epoch,
        )
        reader.send(delivery)

    def _expect(self, sequence: int, unacknowledged: _Unacknowledged, seconds: float) -> None:
        unacknowledged.due = asyncio.get_running_loop().time() + seconds
        heapq.heappush(self._due, (unacknowledged.due, sequence))

    def _arm(self) -> None:
        """Set the timer for the next redelivery."""
        if not self._due:
            return
        due = self._due[0][0]
        if self._timer is None or due < self._timer.when():
            self._stop_timer()
            self._timer = asyncio.get_running_loop().call_at(due, self._come_due)

    def _come_due(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        while self._due and self._due[0][0] <= now:
            due, sequence = heapq.heappop(self._due)
            unacknowledged = self._unacknowledged.get(sequence)
            if unacknowledged is not None and unacknowledged.due == due:
                self._again.append(sequence)
        self.pump()

    def _disarm(self) -> None:
        self._due.clear()
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class MemoryConsumer:
    """Implement `todoku.broker.Subscription` for a session."""

    def __init__(
        self,
        session: "MemorySession",
        durable_name: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        start_after: StartAfter | None = None,
    ) -> None:
        self.durable_name = durable_name
        self.start_after = start_after
        self.subjects = list(subjects)
        self.durable: _Durable | None = None
        self._session = session
        self._broker = session.broker
        self._deliver = deliver
        self._credit = 0
        self._in_flight = 0
        self._arriving: list[Delivery] = []
        self._connection = 0

    @property
    def room(self) -> int:
        """Return how many more messages may be sent."""
        return self._credit - self._in_flight

    def want(self, count: int) -> None:
        self._credit += count
        if self.durable is not None:
            self.durable.pump()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self.term(delivery)

    def term(self, delivery: Delivery) -> None:
        durable = self._reached(delivery)
        if durable is not None:
            durable.acknowledge(delivery.sequence)

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        durable = self._reached(delivery)
        if durable is not None:
            durable.postpone(delivery.sequence, delay_seconds)

    async def stop(self) -> None:
        self.end()

    def end(self) -> None:
        self.cut()
        if self.durable is not None:
            self.durable.remove(self)
            self.durable = None
        if self in self._session.readers:
            self._session.readers.remove(self)

    def cut(self) -> None:
        """Lose what is in flight; the credit for it stays."""
        self._connection += 1
        self._in_flight = 0
        self._arriving.clear()

    def send(self, delivery: Delivery) -> None:
        """Send a message to the session, subject to injected faults."""
        hostility = self._broker.hostility
        if hostility.strikes("drop_delivery"):
            return
        self._send(delivery)
        if self.room > 0 and hostility.strikes("duplicate_delivery"):
            self._send(delivery)

    def _send(self, delivery: Delivery) -> None:
        self._in_flight += 1
        delay_seconds = self._broker.hostility.delay_seconds("delay_delivery")
        if delay_seconds == 0.0:
            self._arrive(delivery, self._connection)
        else:
            _after(delay_seconds, self._arrive, delivery, self._connection)

    def _arrive(self, delivery: Delivery, connection: int) -> None:
        if connection != self._connection:
            return
        if not self._arriving:
            asyncio.get_running_loop().call_soon(self._deliver_arrived)
        self._arriving.append(delivery)

    def _deliver_arrived(self) -> None:
        arrived, self._arriving = self._arriving, []
        if not arrived:
            return  # The connection was cut in the meantime.
        self._in_flight -= len(arrived)
        self._credit -= len(arrived)
        hostility = self._broker.hostility
        if len(arrived) > 1 and hostility.strikes("reorder_deliveries"):
            hostility.random.shuffle(arrived)
        self._deliver(arrived)

    def _reached(self, delivery: Delivery) -> _Durable | None:
        """Return the durable that sent this, if the acknowledgement reaches it."""
        if not self._session.connected or self._broker.hostility.strikes("drop_ack"):
            return None
        durable: _Durable = delivery.token
        return durable


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

    def __init__(self, broker: MemoryBroker, name: str) -> None:
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
        )

    async def begin_epoch(self) -> None:
        self._require_connection("new epoch")
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


def _after(seconds: float, callback: Callable[..., None], *args: object) -> None:
    """Call back later; calls due at once keep their order, unlike with call_later."""
    loop = asyncio.get_running_loop()
    if seconds == 0.0:
        loop.call_soon(callback, *args)
    else:
        loop.call_later(seconds, callback, *args)


@cache
def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject matches a pattern: `*` is one token, a final `>` one or more."""
    wanted, words = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(words) <= len(wanted):
            return False
        words = words[: len(wanted)]
    return len(wanted) == len(words) and all(
        w in ("*", word) for w, word in zip(wanted, words, strict=True)
    )

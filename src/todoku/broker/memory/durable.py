"""Deliver the messages of the stream to the consumers of one durable."""

import asyncio
import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from todoku.broker.memory.subjects import matches
from todoku.broker.partitions import without_slot
from todoku.broker.port import Delivery

if TYPE_CHECKING:
    from todoku.broker.memory.consumer import MemoryConsumer
    from todoku.broker.memory.server import MemoryBroker


@dataclass(frozen=True, slots=True)
class DurableImage:
    """Hold a durable consumer's state: the attempts of each unacknowledged message by sequence."""

    subjects: tuple[str, ...]
    next_sequence: int
    attempts: Mapping[int, int]
    acknowledged: bool = False


@dataclass(slots=True)
class _Unacknowledged:
    """Hold the attempts of a delivered message, and when it is due for redelivery."""

    attempt: int
    due: float


class Durable:
    """Hold the server's state of a durable consumer: what was delivered, and who has credit."""

    def __init__(self, broker: "MemoryBroker", image: DurableImage | None = None) -> None:
        image = image or DurableImage((), 1, {})
        self.readers: list[MemoryConsumer] = []
        self.acknowledged = image.acknowledged
        self._broker = broker
        self._subjects = list(image.subjects)
        self._next = image.next_sequence
        self._unacknowledged = {  # In the order of the stream.
            sequence: _Unacknowledged(attempt, due=0.0)
            for sequence, attempt in image.attempts.items()
        }
        self._again: deque[int] = deque(self._unacknowledged)
        self._due: list[
            tuple[float, int]
        ] = []  # A heap; acknowledged ones stay until they come up.
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0

    def image(self) -> DurableImage:
        attempts = {sequence: u.attempt for sequence, u in self._unacknowledged.items()}
        return DurableImage(tuple(self._subjects), self._next, attempts, self.acknowledged)

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
        self.acknowledged = True
        self.drop(sequence)

    def drop(self, sequence: int) -> None:
        """Never deliver this message again."""
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
            subject=without_slot(message.subject),
            body=message.body,
            attempt=unacknowledged.attempt,
            sequence=sequence,
            token=self,
            stream_epoch=self._broker.stream_epoch,
            owner=message.owner,
            durable=reader.durable_name,
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

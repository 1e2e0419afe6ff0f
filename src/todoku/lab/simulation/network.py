"""Simulated connections to the broker: they can be cut, and record what passes through them."""

from collections.abc import Callable, Sequence
from random import Random

from todoku.broker.memory import Hostility, MemoryBroker, MemoryConsumer, MemorySession
from todoku.broker.partitions import durables_of
from todoku.broker.port import Delivery, Outgoing, StartAfter, Stored
from todoku.engine.receipts import decode_receipt
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.trace import Trace


class FaultInjector(Hostility):
    """Draws the faults of the in-memory broker from the faults of the run."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(Random(0))
        self._faults = faults

    def strikes(self, fault: str) -> bool:
        dice = self._faults.strike(_KINDS[fault])
        if dice is not None:
            self.random = dice
        return dice is not None


_KINDS = {name: name.replace("_", "-") for name in vars(Hostility(Random(0)))}


class SimulatedSession(MemorySession):
    """A process's connection to the broker, which can be cut and restored."""

    def __init__(
        self,
        broker: MemoryBroker,
        name: str,
        checker: InvariantChecker,
        trace: Trace,
        *,
        where: str,
    ) -> None:
        super().__init__(broker, name)
        self.where = where
        """The name of the machine."""
        self._checker = checker
        self._trace = trace
        self._disconnected: list[MemoryConsumer] | None = None

    @property
    def connected(self) -> bool:
        return self._disconnected is None and super().connected

    def cut(self) -> None:
        """Let nothing through."""
        if self._disconnected is None:
            self._disconnected, self.readers = self.readers, []
            for reader in self._disconnected:
                _detach(reader)

    def restore(self) -> None:
        """Let everything through again."""
        if self._disconnected is None:
            return
        self.readers, self._disconnected = self._disconnected + self.readers, None
        if self.connected:
            for reader in self.readers:
                self.broker.attach(reader)

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        self._checker.published(self.name, messages)
        for message in messages:
            self._trace.note(self.where, "publish", message.subject, message.body)
        stored = await super().publish(messages)
        self._checker.stored(messages)
        return stored

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        *,
        start_after: StartAfter | None = None,
    ) -> "RecordingSubscription":
        def record(deliveries: Sequence[Delivery]) -> None:
            for delivery in deliveries:
                self._trace.note(
                    self.where, "deliver", f"attempt {delivery.attempt}", delivery.body
                )
            deliver(deliveries)

        reader = RecordingSubscription(
            self, durable, subjects, record, self._checker, self._trace, start_after
        )
        if self._disconnected is not None:
            self._disconnected.append(reader)
        else:
            self.readers.append(reader)
            if self.connected:
                self.broker.attach(reader)
        return reader

    def notify(self, subject: str, body: bytes) -> None:
        if subject.startswith("receipts."):
            ids = decode_receipt(body).ids
            self._checker.receipted(self.name, ids)
            self._trace.note(self.where, "receipt", " ".join(ids))
        super().notify(subject, body)


class RecordingSubscription(MemoryConsumer):
    """A subscription that records acknowledgements."""

    def __init__(
        self,
        session: SimulatedSession,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        checker: InvariantChecker,
        trace: Trace,
        start_after: StartAfter | None = None,
    ) -> None:
        super().__init__(session, durable, subjects, deliver, start_after)
        self._service = session.name
        self._where = session.where
        self._checker = checker
        self._trace = trace

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        # The durables of a recovery are read again after a crash, whatever was acknowledged.
        if self.durable_name in durables_of(self._service):
            self._checker.acknowledged(self._service, deliveries)
        for delivery in deliveries:
            self._trace.note(self._where, "ack", body=delivery.body)
        super().ack(deliveries)

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        self._trace.note(self._where, "nak", f"again in {delay_seconds} s", delivery.body)
        super().nak(delivery, delay_seconds)


def _detach(reader: MemoryConsumer) -> None:
    reader.cut()
    if reader.durable is not None:
        reader.durable.remove(reader)
        reader.durable = None

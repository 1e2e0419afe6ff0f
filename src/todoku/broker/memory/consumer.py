"""Receive the messages of a durable in a session."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from todoku.broker.memory.durable import Durable
from todoku.broker.memory.faults import call_after
from todoku.broker.port import Delivery, StartAfter

if TYPE_CHECKING:
    from todoku.broker.memory.session import MemorySession


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
        self.durable: Durable | None = None
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
            call_after(delay_seconds, self._arrive, delivery, self._connection)

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

    def _reached(self, delivery: Delivery) -> Durable | None:
        """Return the durable that sent this, if the acknowledgement reaches it."""
        if not self._session.connected or self._broker.hostility.strikes("drop_ack"):
            return None
        durable: Durable = delivery.token
        return durable

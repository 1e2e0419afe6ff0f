"""Bugs: something leaves a service before its commit."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from simulation import planting
from simulation.planting import Wrapped, WrappedBroker, mutant
from todoku.broker.port import BrokerUnavailable, Delivery, Outgoing
from todoku.contracts import (
    read_envelope,
)
from todoku.engine import ReceiptMessage
from todoku.events import UndecodableEvent
from todoku.lab.simulation.wiring import Parts, Wire
from todoku.orders import placing
from todoku.shipping import domain as parcels


class UnacknowledgedDeliveries(WrappedBroker):
    """Remembers what was delivered and is not acknowledged yet."""

    def __init__(self, inner: Any, parts: Parts) -> None:
        super().__init__(inner, parts)
        self.open: list[Delivery] = []

    def arrive(self, deliveries: Sequence[Delivery], deliver: Callable[..., None]) -> None:
        self.open.extend(deliveries)
        deliver(deliveries)

    def take(self) -> list[Delivery]:
        """Return them once."""
        taken, self.open = self.open, []
        return taken


def before_commit(do: Callable[[UnacknowledgedDeliveries], None]) -> Wire:
    """Do something with what is not acknowledged, before the commit of its batch."""

    def wire(parts: Parts) -> Parts:
        broker = UnacknowledgedDeliveries(parts.broker, parts)
        reached = parts.failpoint

        def failpoint(point: str) -> None:
            if point == "before-commit":
                do(broker)
            reached(point)

        return msgspec.structs.replace(parts, broker=broker, failpoint=failpoint)

    return wire


@mutant
def acknowledge_before_commit() -> Wire:
    """A message is acknowledged before what it led to is committed."""
    return before_commit(lambda broker: broker.subscription.ack(broker.take()))


@mutant
def receipt_before_commit() -> Wire:
    """An event is receipted before what it led to is committed."""

    def receipt(broker: UnacknowledgedDeliveries) -> None:
        for delivery in broker.take():
            try:
                envelope = read_envelope(delivery.body)
            except UndecodableEvent:
                continue
            message = ReceiptMessage(broker.parts.service.name, (envelope.id,))
            broker.inner.notify(f"receipts.{envelope.source}", msgspec.json.encode(message))

    return before_commit(receipt)


@mutant
def publish_before_commit() -> Wire:
    """An event is on the stream before it is in the outbox for good."""

    class Outbox(Wrapped):
        def add(self, connection: Any, owner: str, position: int, events: Any, now: Any) -> Any:
            rows = self.inner.add(connection, owner, position, events, now)
            if rows:
                messages = [Outgoing(row.subject, row.body) for row in rows]
                publishing = self.parts.broker.publish(messages)
                try:
                    publishing.send(None)  # as far as it goes without waiting
                except (StopIteration, BrokerUnavailable):
                    pass
                finally:
                    publishing.close()
            return rows

    return planting.tables("outbox", Outbox)


@mutant
def answer_before_commit() -> Wire:
    """A caller is answered before the command is committed."""
    decided: dict[Any, Any] = {}
    running: list[Any] = []  # A task that nobody holds would be destroyed.

    def decide(original: Any, order: Any, command: Any, now: Any) -> Any:
        decision = original(order, command, now)
        for waiting in decided.pop(command, ()):
            if not waiting.done():
                waiting.set_result(decision[0])
        return decision

    async def execute(process: Any, command: Any, key: Any) -> Any:
        if not isinstance(command, placing.PlaceOrder):
            return await process.execute(command, key=key)
        early = asyncio.get_running_loop().create_future()
        decided.setdefault(command, []).append(early)
        committed = asyncio.ensure_future(process.execute(command, key=key))
        running.append(committed)
        done, _ = await asyncio.wait([early, committed], return_when=asyncio.FIRST_COMPLETED)
        committed.add_done_callback(lambda task: task.cancelled() or task.exception())
        return done.pop().result()

    handlers = planting.commands("orders", placing.PlaceOrder, decide)
    return lambda parts: msgspec.structs.replace(handlers(parts), execute=execute)


@mutant
def carrier_before_commit() -> Wire:
    """The carrier is called before the claim to call it is committed."""
    calls: list[Callable[[Any], Any]] = []

    def decide(original: Any, shipment: Any, now: Any) -> Any:
        decided, outputs = original(shipment, now)
        for effect in outputs:
            if isinstance(effect, parcels.BookParcel):
                asyncio.get_running_loop().create_task(calls[-1](effect))
        return decided, outputs

    agenda = planting.agenda("shipping", decide=decide)

    def wire(parts: Parts) -> Parts:
        calls.extend(parts.service.effects.values())
        return agenda(parts)

    return wire

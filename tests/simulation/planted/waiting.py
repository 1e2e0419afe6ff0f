"""Bugs: what is due is forgotten."""

from datetime import timedelta
from typing import Any

import msgspec

from simulation import planting
from simulation.planting import Wrapped, mutant
from todoku.contracts import BookingAttemptFailedEvent
from todoku.lab.simulation.wiring import Parts, Wire
from todoku.orders import placing
from todoku.shipping import domain as parcels


@mutant
def claim_never_expires() -> Wire:
    """A call to the carrier without an answer is never repeated."""

    def decide(original: Any, shipment: parcels.Shipment, now: Any) -> Any:
        claimed, outputs = original(shipment, now)
        if any(isinstance(output, parcels.BookParcel) for output in outputs):
            claimed = msgspec.structs.replace(claimed, due_at=now + timedelta(days=3650))
        return claimed, outputs

    return planting.agenda("shipping", decide=decide)


@mutant
def due_rows_forgotten_at_start() -> Wire:
    """Rows that fell due while no process ran are not found at the next start."""

    def wire(parts: Parts) -> Parts:
        looked, forgotten = False, None

        def due_range(original: Any, connection: Any) -> Any:
            nonlocal looked, forgotten
            found = original(connection)
            if not looked:
                looked, forgotten = True, found
            return None if found and forgotten and found[0] == forgotten[0] else found

        return planting.agenda("shipping", due_range=due_range)(parts)

    return wire


@mutant
def deadline_never_fires() -> Wire:
    """An order that is still open at its deadline waits on."""

    def decide(original: Any, order: Any, now: Any) -> Any:
        return msgspec.structs.replace(order, due_at=None), []

    return planting.agenda("orders", due="orders.due_at", decide=decide)


@mutant
def deadline_too_early() -> Wire:
    """An order is cancelled some seconds before its deadline."""

    def decide(original: Any, state: Any, command: Any, now: Any) -> Any:
        order, events = original(state, command, now)
        early = order.due_at and order.due_at - timedelta(seconds=20)
        return msgspec.structs.replace(order, due_at=early), events

    return planting.commands("orders", placing.PlaceOrder, decide)


@mutant
def deadline_forgotten() -> Wire:
    """The deadline of an order is not saved."""

    def decide(original: Any, state: Any, command: Any, now: Any) -> Any:
        order, events = original(state, command, now)
        return msgspec.structs.replace(order, due_at=None), events

    return planting.commands("orders", placing.PlaceOrder, decide)


@mutant
def every_failed_attempt_published() -> Wire:
    """Each failed attempt to book a parcel is published, not one a minute."""

    def decide(original: Any, shipment: Any, command: Any, now: Any) -> Any:
        known = shipment and msgspec.structs.replace(shipment, failure_published_at=None)
        return original(known, command, now)

    return planting.commands("shipping", parcels.RecordAnswer, decide)


@mutant
def failed_attempt_not_published() -> Wire:
    """That an attempt to book a parcel has failed is noted as published, and is not."""

    def decide(original: Any, shipment: Any, command: Any, now: Any) -> Any:
        after, events = original(shipment, command, now)
        return after, [e for e in events if not isinstance(e, BookingAttemptFailedEvent)]

    return planting.commands("shipping", parcels.RecordAnswer, decide)


@mutant
def failed_attempt_not_kept() -> Wire:
    """An order does not keep why its parcel is not booked yet."""

    def decide(original: Any, order: Any, event: Any, now: Any) -> Any:
        _, events = original(order, event, now)
        return order, events

    return planting.events("orders", BookingAttemptFailedEvent, decide)


@mutant
def history_incomplete() -> Wire:
    """The start of a shipment is missing in the history of the order."""

    class Store(Wrapped):
        def load(self, *arguments: Any) -> Any:
            return UnitOfWork(self.inner.load(*arguments), self.parts)

        def save(self, connection: Any, unit_of_work: Any, now: Any) -> None:
            self.inner.save(connection, unit_of_work.inner, now)

    class UnitOfWork(Wrapped):
        def record(self, envelope: Any) -> None:
            if envelope.type != "ShipmentInitiatedEvent":
                self.inner.record(envelope)

    return planting.store(Store, "orders")

"""Bugs: a message that cannot be processed does harm."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import select

from simulation import planting
from simulation.planting import Receipts, Wrapped, WrappedBroker, mutant
from todoku.broker.port import Delivery
from todoku.contracts import (
    read_envelope,
)
from todoku.database import ConstraintViolated
from todoku.engine.dead_letter_handler import UNPUBLISHABLE
from todoku.events import UndecodableEvent
from todoku.lab.simulation.wiring import Wire


@mutant
def parked_not_receipted() -> Wire:
    """A parked message gets no receipt."""

    class Broker(Receipts):
        def keep(self, event_id: str) -> bool:
            letters = self.parts.service.store.tables.dead_letters.table
            query = select(letters.c.event_id).where(letters.c.event_id == event_id)
            with self.parts.database.read() as connection:
                return connection.scalar(query) is None

    return planting.broker(Broker)


@mutant
def neighbours_poisoned() -> Wire:
    """A batch with one message that the tables refuse fails as a whole."""

    class Database(Wrapped):
        @contextmanager
        def transaction(self) -> Any:
            try:
                with self.inner.transaction() as connection:
                    yield connection
            except ConstraintViolated as error:
                raise RuntimeError("the batch was refused") from error

    return planting.database(Database)


class Undecodable(WrappedBroker):
    """Handles messages that cannot be decoded before they reach the process."""

    def arrive(self, deliveries: Sequence[Delivery], deliver: Callable[..., None]) -> None:
        passed = [changed for each in deliveries if (changed := self.change(each)) is not None]
        if passed:
            deliver(passed)

    def change(self, delivery: Delivery) -> Delivery | None:
        """Return what is delivered instead."""
        try:
            envelope = read_envelope(delivery.body)
        except UndecodableEvent:
            return self.change_undecodable(delivery)
        known = {event.__name__ for event in self.parts.service.event_handlers}
        return delivery if envelope.type in known else self.change_undecodable(delivery)

    def change_undecodable(self, delivery: Delivery) -> Delivery | None:
        raise NotImplementedError


@mutant
def undecodable_dropped() -> Wire:
    """An undecodable message is acknowledged and not parked."""

    class Broker(Undecodable):
        def change_undecodable(self, delivery: Delivery) -> Delivery | None:
            self.subscription.ack([delivery])
            self.subscription.want(1)
            return None

    return planting.broker(Broker)


@mutant
def poison_never_parked() -> Wire:
    """An undecodable message is retried for ever."""

    class Broker(Undecodable):
        def change_undecodable(self, delivery: Delivery) -> Delivery | None:
            self.subscription.nak(delivery, 1.0)
            self.subscription.want(1)
            return None

    return planting.broker(Broker)


def ended_by(check: Callable[[Delivery], object]) -> Wire:
    """Let a process fail at a delivery for which `check` raises `ValueError`."""

    class Broker(WrappedBroker):
        def arrive(self, deliveries: Sequence[Delivery], deliver: Callable[..., None]) -> None:
            for delivery in deliveries:
                check(delivery)
            deliver(deliveries)

    return planting.broker(Broker)


@mutant
def time_without_zone_ends_process() -> Wire:
    """A time without a zone, in the data of an event, ends the process that reads it."""

    def check(delivery: Delivery) -> None:
        if b'"parkedAt":"2030-01-01T00:00:00"' in delivery.body:
            raise ValueError("a time without a zone")

    return ended_by(check)


@mutant
def invalid_encoding_ends_process() -> Wire:
    """A field of a newer version that is not UTF-8 ends the process that reads it."""
    return ended_by(lambda delivery: delivery.body.startswith(b"{") and delivery.body.decode())


@mutant
def odd_uuid_ends_process() -> Wire:
    """The id of an order in another notation of UUIDs ends the process that reads it."""

    def check(delivery: Delivery) -> None:
        if b'"orderId":"urn:uuid:' in delivery.body:
            raise ValueError("not the usual notation of a UUID")

    return ended_by(check)


@mutant
def unpublishable_dropped() -> Wire:
    """An event that the broker does not take is dropped instead of parked."""

    class Letters(Wrapped):
        def replace(self, connection: Any, letters: Any, attempts: Any) -> None:
            kept = [each for each in letters if each.error_class != UNPUBLISHABLE]
            ids = {each.id for each in kept}
            self.inner.replace(connection, kept, [a for a in attempts if a.letter_id in ids])

    return planting.tables("dead_letters", Letters)

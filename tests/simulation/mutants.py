"""Plants bugs into the engine and the services, one at a time: the simulation must find each.

`make mutants` prints which check found which bug at which seed. A check that no mutant exercises
proves nothing; a mutant that is not found shows a missing check. A bug is planted by wrapping what is
handed to a process (todoku.lab.simulation.wiring): no private name of the code is used.
"""

import asyncio
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import delete, select

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation import planting
from simulation.planting import Wrapped, WrappedBroker
from todoku.broker.port import BrokerUnavailable, Delivery, Outgoing, Progress, Stored
from todoku.contracts import (
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservedEvent,
    read_envelope,
)
from todoku.database import ConstraintViolated
from todoku.engine import ReceiptMessage
from todoku.events import UndecodableEvent
from todoku.inventory import domain as stock
from todoku.lab.simulation import SimulationPlan, Violation, simulate
from todoku.lab.simulation.wiring import Parts, Wire
from todoku.orders import domain as ordering
from todoku.shipping import domain as parcels

SEEDS_MAX = 300
"""How many runs to try before a mutant counts as not found."""


class Mutant(msgspec.Struct, frozen=True):
    """A bug: its name, what it does wrong, and how it is planted into one run."""

    name: str
    meaning: str
    plant: Callable[[], Wire]


class Found(msgspec.Struct, frozen=True):
    """The seed and the violation that found a mutant."""

    seed: int
    violation: Violation


MUTANTS: list[Mutant] = []


def mutant(plant: Callable[[], Wire]) -> Callable[[], Wire]:
    """Register a bug: the function's name is its name, the docstring what it does wrong."""
    name = plant.__name__.replace("_", "-")
    MUTANTS.append(Mutant(name, " ".join((plant.__doc__ or "").split()), plant))
    return plant


def hunt(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> Found | None:
    """Return the first seed that finds the mutant, None if none does."""
    for seed in range(1, seeds_max + 1):
        if violations := simulate(SimulationPlan(seed=seed), mutant.plant()).violations:
            return Found(seed, violations[0])
    return None


# After the commit, and only then.


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

    def decide(original: Any, order: Any, command: Any, now: Any) -> Any:
        decision = original(order, command, now)
        for waiting in decided.pop(command, ()):
            if not waiting.done():
                waiting.set_result(decision[0])
        return decision

    async def execute(process: Any, command: Any) -> Any:
        if not isinstance(command, ordering.PlaceOrder):
            return await process.execute(command)
        early = asyncio.get_running_loop().create_future()
        decided.setdefault(command, []).append(early)
        committed = asyncio.ensure_future(process.execute(command))
        done, _ = await asyncio.wait([early, committed], return_when=asyncio.FIRST_COMPLETED)
        committed.add_done_callback(lambda task: task.cancelled() or task.exception())
        return done.pop().result()

    handlers = planting.commands("orders", ordering.PlaceOrder, decide)
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


# Until every subscriber has it.


@mutant
def outbox_deleted_at_publish() -> Wire:
    """An outbox row is deleted as soon as the broker has the event."""

    class Broker(WrappedBroker):
        async def publish(self, messages: Sequence[Outgoing]) -> Stored:
            stored: Stored = await self.inner.publish(messages)
            table = self.parts.service.store.tables.outbox.table
            with self.parts.database.transaction() as connection:
                connection.execute(
                    delete(table).where(table.c.body.in_([m.body for m in messages]))
                )
            return stored

    return planting.broker(Broker)


@mutant
def stream_forgotten_at_the_next_commit() -> Wire:
    """An event that no service subscribes to is forgotten before the broker has stored it."""

    class Outbox(Wrapped):
        def add(self, connection: Any, owner: str, position: int, events: Any, now: Any) -> Any:
            self.inner.mark_stored(connection, owner, [(0, position)])
            return self.inner.add(connection, owner, position, events, now)

    return planting.tables("outbox", Outbox)


class Resends(WrappedBroker):
    """Tells what is published for the first time from what is published again."""

    def __init__(self, inner: Any, parts: Parts) -> None:
        super().__init__(inner, parts)
        self.published: set[bytes] = set()
        self.last = Stored("", 0)

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        if all(message.body in self.published for message in messages):
            return await self.publish_again(messages)
        self.last = await self.inner.publish(messages)
        self.published.update(message.body for message in messages)
        return self.last

    async def publish_again(self, messages: Sequence[Outgoing]) -> Stored:
        raise NotImplementedError


@mutant
def suspects_dropped() -> Wire:
    """A resend that fails is not retried."""

    class Broker(Resends):
        def __init__(self, inner: Any, parts: Parts) -> None:
            super().__init__(inner, parts)
            self.forgotten: set[bytes] = set()

        async def publish_again(self, messages: Sequence[Outgoing]) -> Stored:
            try:
                return await self.inner.publish(messages)  # type: ignore[no-any-return]
            except BrokerUnavailable:
                self.forgotten.update(message.body for message in messages)
                raise

    class Outbox(Wrapped):
        def between(self, *arguments: Any) -> Any:
            rows = self.inner.between(*arguments)
            return [row for row in rows if row.body not in self.parts.broker.forgotten]

    wire = planting.broker(Broker)
    return lambda parts: planting.tables("outbox", Outbox)(wire(parts))


@mutant
def never_sent_again() -> Wire:
    """An event that a subscriber has passed without a receipt is not resent."""

    class Broker(Resends):
        async def publish_again(self, messages: Sequence[Outgoing]) -> Stored:
            return self.last

    return planting.broker(Broker)


@mutant
def incarnation_ignored() -> Wire:
    """A new stream epoch is not noticed."""

    class Broker(WrappedBroker):
        async def publish(self, messages: Sequence[Outgoing]) -> Stored:
            return msgspec.structs.replace(await self.inner.publish(messages), stream_epoch="one")

        async def progress(self, readers: Sequence[str]) -> Progress:
            return msgspec.structs.replace(await self.inner.progress(readers), stream_epoch="one")

    return planting.broker(Broker)


@mutant
def adoption_skipped() -> Wire:
    """The pending deliveries of a dead process are not adopted."""

    class Outbox(Wrapped):
        def adopt(self, connection: Any, new_owner: str, position: int, alive: Any) -> int:
            return position

    return planting.tables("outbox", Outbox)


@mutant
def lost_commit_answer_believed() -> Wire:
    """A commit whose result is unknown is taken for one that failed."""

    class Outbox(Wrapped):
        def last_position(self, connection: Any, owner: str) -> int:
            self.inner.last_position(connection, owner)
            return 0

    return planting.tables("outbox", Outbox)


@mutant
def memory_believed() -> Wire:
    """After a commit whose result is unknown, the cached state is used."""

    class Store(Wrapped):
        kept: dict[tuple[str, Any], Any]

        def load(self, connection: Any, subjects: Any, cache: Any) -> Any:
            # The cache that is handed in is valid again: what it has forgotten is put back.
            for (kind, key), state in self.kept.items():
                cache.put(kind, {key: state})
            return UnitOfWork(self.inner.load(connection, subjects, cache), self.parts)

        def save(self, connection: Any, unit_of_work: Any, now: Any) -> None:
            self.inner.save(connection, unit_of_work.inner, now)

    class UnitOfWork(Wrapped):
        def fill_cache(self, cache: Any) -> None:
            self.inner.fill_cache(Recorder(cache, self.parts))

    class Recorder(Wrapped):
        def put(self, kind: str, states: Any) -> None:
            Store.kept.update({(kind, key): state for key, state in states.items()})
            self.inner.put(kind, states)

    def wire(parts: Parts) -> Parts:
        if parts.service.name != "inventory":
            return parts
        Store.kept = {}  # A new process remembers nothing.
        return planting.store(Store)(parts)

    return wire


class Receipts(WrappedBroker):
    """Sends only those receipts that `keep` keeps."""

    def notify(self, subject: str, body: bytes) -> None:
        if subject.startswith("receipts."):
            receipt = msgspec.json.decode(body, type=ReceiptMessage)
            kept = tuple(event_id for event_id in receipt.ids if self.keep(event_id))
            if not kept:
                return
            body = msgspec.json.encode(msgspec.structs.replace(receipt, ids=kept))
        self.inner.notify(subject, body)

    def keep(self, event_id: str) -> bool:
        raise NotImplementedError


@mutant
def repeat_not_receipted() -> Wire:
    """A duplicate gets no receipt."""
    sent: set[tuple[str, str]] = set()

    class Broker(Receipts):
        def keep(self, event_id: str) -> bool:
            known = (self.parts.service.name, event_id) in sent
            sent.add((self.parts.service.name, event_id))
            return not known

    return planting.broker(Broker)


@mutant
def credit_not_renewed() -> Wire:
    """Handled messages do not renew the credit."""

    class Subscription(Wrapped):
        wanted = False

        def want(self, count: int) -> None:
            if not self.wanted:
                self.inner.want(count)
            self.wanted = True

    class Broker(WrappedBroker):
        async def subscribe(self, *arguments: Any) -> Any:
            return Subscription(await super().subscribe(*arguments), self.parts)

    return planting.broker(Broker)


# Poison.


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
def unreadable_dropped() -> Wire:
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
def invalid_utf8_ends_process() -> Wire:
    """A field of a newer version that is not UTF-8 ends the process that reads it."""
    return ended_by(lambda delivery: delivery.body.startswith(b"{") and delivery.body.decode())


@mutant
def odd_uuid_ends_process() -> Wire:
    """The id of an order in another notation of UUIDs ends the process that reads it."""

    def check(delivery: Delivery) -> None:
        if b'"orderId":"urn:uuid:' in delivery.body:
            raise ValueError("not the usual notation of a UUID")

    return ended_by(check)


# Once.


@mutant
def inbox_not_written() -> Wire:
    """What was handled is not recorded in the inbox."""

    class Inbox(Wrapped):
        def add(self, connection: Any, ids: Any, now: Any) -> None:
            pass

    return planting.tables("inbox", Inbox)


@mutant
def reservation_decided_anew() -> Wire:
    """A duplicate of an order that outlived the inbox reserves its stock again."""
    return planting.events(
        "inventory",
        OrderCreatedEvent,
        lambda original, state, event, now: original(
            msgspec.structs.replace(state, reservation=None), event, now
        ),
    )


@mutant
def deducted_twice() -> Wire:
    """A duplicate of a completed shipment that outlived the inbox deducts its pieces again."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        held = state.reservation
        if held is not None and held.state is stock.ReservationState.SHIPPED:
            held = msgspec.structs.replace(held, state=stock.ReservationState.RESERVED)
        return original(msgspec.structs.replace(state, reservation=held), event, now)

    return planting.events("inventory", ShipmentCompletedEvent, decide)


@mutant
def second_shipment() -> Wire:
    """A duplicate of a reservation that outlived the inbox opens the shipment again."""
    return planting.events(
        "shipping",
        StockReservedEvent,
        lambda original, shipment, event, now: original(None, event, now),
    )


@mutant
def parcel_of_more_than_was_ordered() -> Wire:
    """Shipping ships 99 pieces of each item."""

    def decide(original: Any, shipment: Any, event: StockReservedEvent, now: Any) -> Any:
        items = tuple(msgspec.structs.replace(item, quantity=99) for item in event.items)
        return original(shipment, msgspec.structs.replace(event, items=items), now)

    return planting.events("shipping", StockReservedEvent, decide)


@mutant
def parcel_to_another_address() -> Wire:
    """Shipping ships to an address that was not ordered."""

    def decide(original: Any, shipment: Any, event: StockReservedEvent, now: Any) -> Any:
        return original(shipment, msgspec.structs.replace(event, shipping_address="here"), now)

    return planting.events("shipping", StockReservedEvent, decide)


@mutant
def ending_not_published() -> Wire:
    """An order that is completed is not announced."""

    def decide(original: Any, order: Any, event: ShipmentCompletedEvent, now: Any) -> Any:
        return original(order, event, now)[0], []

    return planting.events("orders", ShipmentCompletedEvent, decide)


@mutant
def two_keys_for_a_booking() -> Wire:
    """A repeated call to the carrier has another key."""

    async def call(original: Any, booking: parcels.BookParcel) -> Any:
        key = f"{booking.shipment_id}-{booking.attempt}"
        return await original(msgspec.structs.replace(booking, shipment_id=key))

    return planting.effects("shipping", parcels.BookParcel, call)


@mutant
def late_event_overwrites_status() -> Wire:
    """An event that was overtaken sets the order back."""

    def decide(original: Any, order: Any, event: Any, now: Any) -> Any:
        order, events = original(order, event, now)
        status = ordering.OrderStatus.AWAITING_SHIPMENT
        return msgspec.structs.replace(order, status=status, updated_at=now), events

    return planting.events("orders", StockReservedEvent, decide)


# All or nothing, and undone.


@mutant
def no_compensation() -> Wire:
    """The stock of a shipment that failed is not released."""
    return planting.events(
        "inventory", ShipmentFailedEvent, lambda original, state, event, now: (state, [])
    )


@mutant
def partial_reservation() -> Wire:
    """Of an order that cannot be fulfilled, what there is gets reserved and shipped."""

    def decide(original: Any, state: stock.Stock, event: OrderCreatedEvent, now: Any) -> Any:
        there = tuple(
            item
            for item in event.items
            if item.product_id in state.products
            and state.products[item.product_id].available >= item.quantity
        )
        return original(state, msgspec.structs.replace(event, items=there or event.items), now)

    return planting.events("inventory", OrderCreatedEvent, decide)


@mutant
def refusal_not_durable() -> Wire:
    """That an order was refused is published but not saved."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        held = after.reservation
        refused = held is not None and held.state is stock.ReservationState.REFUSED
        return (state if refused else after), events

    return planting.events("inventory", OrderCreatedEvent, decide)


@mutant
def ledger_forgotten() -> Wire:
    """What is shipped leaves the stock without an entry in the ledger."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        return msgspec.structs.replace(after, entries=()), events

    return planting.events("inventory", ShipmentCompletedEvent, decide)


@mutant
def restock_forgotten() -> Wire:
    """A restock is confirmed and not executed."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        original(state, command, now)
        return state, []

    return planting.commands("inventory", stock.Restock, decide)


@mutant
def restocked_twice() -> Wire:
    """A restock is executed twice."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        once, _ = original(state, command, now)
        twice, _ = original(once, command, now)
        return msgspec.structs.replace(twice, entries=once.entries + twice.entries), []

    return planting.commands("inventory", stock.Restock, decide)


@mutant
def unconfirmed_command_repeated() -> Wire:
    """A command whose commit was not confirmed is executed again."""

    def wire(parts: Parts) -> Parts:
        return msgspec.structs.replace(
            parts, service=replace(parts.service, deduplicated_commands=())
        )

    return wire


def after_save(service: str, *statements: str) -> Wire:
    """Execute statements after each save of a service."""

    class Store(Wrapped):
        def save(self, connection: Any, unit_of_work: Any, now: Any) -> None:
            self.inner.save(connection, unit_of_work, now)
            for statement in statements:
                connection.exec_driver_sql(statement)

    return planting.store(Store, service)


@mutant
def ledger_tidied() -> Wire:
    """Restocks are merged into the opening entry, so that the sums stay right."""
    return after_save(
        "inventory",
        "UPDATE stock_ledger SET quantity = quantity + ("
        "SELECT coalesce(sum(other.quantity), 0) FROM stock_ledger AS other "
        "WHERE other.product_id = stock_ledger.product_id AND other.reason = 'RESTOCK'"
        ") WHERE reason = 'OPENING'",
        "DELETE FROM stock_ledger WHERE reason = 'RESTOCK'",
    )


@mutant
def ended_orders_tidied_away() -> Wire:
    """An order is deleted when it has ended."""
    return after_save("orders", "DELETE FROM orders WHERE status = 'COMPLETED'")


@mutant
def order_placed_anew() -> Wire:
    """A retry with the id of an existing order is answered as a new order."""

    def decide(original: Any, order: ordering.Order | None, command: Any, now: Any) -> Any:
        placed, events = original(None, command, now)
        return placed, [] if order else events

    return planting.commands("orders", ordering.PlaceOrder, decide)


# What waits.


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
        started = False

        def next_due_at(original: Any, connection: Any) -> Any:
            nonlocal started
            found = original(connection) if started else None
            started = True
            return found

        return planting.agenda("shipping", next_due_at=next_due_at)(parts)

    return wire


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


def main(names: Collection[str]) -> int:
    """Hunt the mutants of these names, or all; return how many were not found."""
    escaped = 0
    for each in MUTANTS:
        if names and each.name not in names:
            continue
        found = hunt(each)
        escaped += found is None
        told = f"NOT FOUND in {SEEDS_MAX} seeds"
        if found is not None:
            told = f"seed {found.seed:>2}  {found.violation.invariant}  {found.violation.problem}"
        print(f"{each.name:<28} {told:.110}", flush=True)
    return escaped


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Plants bugs into the engine and the services, one at a time: the simulation must find each.

`make mutants` prints which check found which bug at which seed. A check that no mutant exercises
proves nothing; a mutant that is not found shows a missing check.
"""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import msgspec
from sqlalchemy import delete

from todoku.contracts import Event, OrderCreatedEvent, ShipmentCompletedEvent, ShipmentFailedEvent
from todoku.engine.batch_context import BatchContext, PostCommitActions
from todoku.engine.cache import StateCache
from todoku.engine.consumer import Consumer
from todoku.engine.messages import IncomingEvent
from todoku.engine.process import Process, ReceiptMessage
from todoku.engine.relay import Relay
from todoku.engine.tables import Inbox, Outbox
from todoku.engine.writer import Writer
from todoku.inventory import domain as stock
from todoku.inventory.service import inventory_service
from todoku.inventory.store import InventoryStore, InventoryUnitOfWork
from todoku.lab.simulation import SimulationPlan, Violation, simulate
from todoku.orders import domain as ordering
from todoku.orders.service import orders_service
from todoku.orders.store import OrdersStore, OrdersUnitOfWork
from todoku.settings import Settings
from todoku.shipping import domain as parcels
from todoku.shipping import service as shipping

inventory = inventory_service(Settings())
orders = orders_service(Settings())

SEEDS_MAX = 300
"""How many runs to try before a mutant counts as not found."""

Plant = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutant:
    """A bug: its name, what it does wrong, and a context in which it is planted."""

    name: str
    meaning: str
    plant: Plant


@dataclass(frozen=True)
class Found:
    """The seed and the violation that found a mutant."""

    seed: int
    violation: Violation


MUTANTS: list[Mutant] = []


def mutant(plant: Callable[[], Iterator[None]]) -> Plant:
    """Register a bug: the function's name is its name, the docstring what it does wrong."""
    planted = contextmanager(plant)
    name = plant.__name__.replace("_", "-")
    MUTANTS.append(Mutant(name, " ".join((plant.__doc__ or "").split()), planted))
    return planted


def hunt(mutant: Mutant, seeds_max: int = SEEDS_MAX) -> Found | None:
    """Return the first seed that finds the mutant, None if none does."""
    with mutant.plant():
        for seed in range(1, seeds_max + 1):
            if violations := simulate(SimulationPlan(seed=seed)).violations:
                return Found(seed, violations[0])
    return None


# After the commit, and only then.


@mutant
def acknowledge_before_commit() -> Iterator[None]:
    """A message is acknowledged before what it led to is committed."""
    commit = Process._commit

    async def mutated(self: Process, batch: Sequence[Any]) -> PostCommitActions:
        subscription = self.consumer._subscription
        if subscription is not None:
            subscription.ack([each.delivery for each in batch if isinstance(each, IncomingEvent)])
        return await commit(self, batch)

    with patch.object(Process, "_commit", mutated):
        yield


@mutant
def receipt_before_commit() -> Iterator[None]:
    """An event is receipted before what it led to is committed."""
    commit = Process._commit

    async def mutated(self: Process, batch: Sequence[Any]) -> PostCommitActions:
        for message in batch:
            if isinstance(message, IncomingEvent):
                receipt = ReceiptMessage(self.service.name, (message.envelope.id,))
                subject = f"receipts.{message.envelope.source}"
                self._broker.notify(subject, msgspec.json.encode(receipt))
        return await commit(self, batch)

    with patch.object(Process, "_commit", mutated):
        yield


@mutant
def publish_before_commit() -> Iterator[None]:
    """An event is on the stream before it is in the outbox for good."""
    start, write_books = Process.start, Writer._record

    async def remember_relay(self: Process) -> None:
        self.writer.relay = self.relay  # type: ignore[attr-defined]
        await start(self)

    def mutated(self: Any, connection: Any, batch_context: Any, *arguments: Any) -> None:
        write_books(self, connection, batch_context, *arguments)
        if batch_context.actions.published:
            publishing = self.relay._store(batch_context.actions.published, list(self.relay._sent))
            with ExitStack() as stack:
                stack.callback(publishing.close)
                publishing.send(None)  # as far as it goes without waiting

    with (
        patch.object(Process, "start", remember_relay),
        patch.object(Writer, "_record", mutated),
    ):
        yield


@mutant
def answer_before_commit() -> Iterator[None]:
    """A caller is answered before the command is committed."""
    handle_command = BatchContext.handle_command

    def mutated(self: BatchContext, unit_of_work: Any, pending: Any) -> None:
        handle_command(self, unit_of_work, pending)
        pending.answer(self.actions.answers[-1][1])

    with patch.object(BatchContext, "handle_command", mutated):
        yield


@mutant
def carrier_before_commit() -> Iterator[None]:
    """The carrier is called before the claim to call it is committed."""
    keep = BatchContext.keep

    def mutated(self: BatchContext, *arguments: Any, **options: Any) -> None:
        before = len(self.actions.effects)
        keep(self, *arguments, **options)
        for effect in self.actions.effects[before:]:
            calling: Any = self.service.effects[type(effect)](effect)
            asyncio.get_running_loop().create_task(calling)

    with patch.object(BatchContext, "keep", mutated):
        yield


# Until every reader has it.


@mutant
def outbox_deleted_at_publish() -> Iterator[None]:
    """An event is forgotten as soon as the broker has it."""
    store = Relay._store

    async def mutated(self: Relay, rows: Sequence[Any], readers: Sequence[str]) -> None:
        await store(self, rows, readers)
        table = self._outbox.table
        positions = [row.position for row in rows]
        with self._database.transaction() as connection:
            connection.execute(
                delete(table).where(table.c.owner == self._owner, table.c.position.in_(positions))
            )

    with patch.object(Relay, "_store", mutated):
        yield


@mutant
def suspects_dropped() -> Iterator[None]:
    """What was to be sent again is forgotten when sending it fails."""
    look_at = Relay._check_reader

    async def mutated(self: Relay, reader: str, progress: Any) -> None:
        try:
            await look_at(self, reader, progress)
        except Exception:
            self._suspects[reader].clear()
            raise

    with patch.object(Relay, "_check_reader", mutated):
        yield


@mutant
def never_sent_again() -> Iterator[None]:
    """What a reader has passed without a receipt is not sent again."""

    async def mutated(self: Relay, reader: str, after: int, up_to: int) -> None:
        pass

    with patch.object(Relay, "_resend", mutated):
        yield


@mutant
def incarnation_ignored() -> Iterator[None]:
    """That the stream is a new one is not noticed."""
    look = Relay.check_progress

    async def mutated(self: Relay) -> None:
        progress = await self._broker.progress(tuple(self._sent))
        for batches in (*self._sent.values(), *self._suspects.values()):
            for n, batch in enumerate(batches):
                batches[n] = msgspec.structs.replace(batch, stream_epoch=progress.stream_epoch)
        await look(self)

    with patch.object(Relay, "check_progress", mutated):
        yield


@mutant
def adoption_skipped() -> Iterator[None]:
    """What a dead process still owed is not taken over."""

    def mutated(self: Outbox, connection: Any, new_owner: str, position: int, alive: Any) -> int:
        return position

    with patch.object(Outbox, "adopt", mutated):
        yield


@mutant
def lost_commit_answer_believed() -> Iterator[None]:
    """A commit whose answer was lost is taken for one that failed."""
    last_position = Outbox.last_position

    def mutated(self: Outbox, connection: Any, owner: str) -> int:
        last_position(self, connection, owner)
        return 0

    with patch.object(Outbox, "last_position", mutated):
        yield


@mutant
def memory_believed() -> Iterator[None]:
    """After a commit whose answer was lost, what was remembered before it is taken for the state."""

    def mutated(self: StateCache) -> None:
        pass

    with patch.object(StateCache, "clear", mutated):
        yield


@mutant
def repeat_not_receipted() -> Iterator[None]:
    """An event that is known already is not receipted again."""
    deduplicate = BatchContext.deduplicate

    def mutated(self: BatchContext, *arguments: Any) -> Any:
        messages = deduplicate(self, *arguments)
        self.actions.receipts.clear()
        return messages

    with patch.object(BatchContext, "deduplicate", mutated):
        yield


@mutant
def credit_not_renewed() -> Iterator[None]:
    """Messages that were dealt with make no room for others."""

    def mutated(self: Consumer, used: int) -> None:
        pass

    with patch.object(Consumer, "refill", mutated):
        yield


# Poison.


@mutant
def parked_not_receipted() -> Iterator[None]:
    """The publisher of a message that was parked is never told so."""
    park = BatchContext._park

    def mutated(self: BatchContext, letter: Any, delivery: Any, envelope: Any) -> None:
        park(self, letter, delivery, envelope)
        if envelope is not None:
            self.handled_ids.remove(envelope.id)
            self.actions.receipts[envelope.source].remove(envelope.id)

    with patch.object(BatchContext, "_park", mutated):
        yield


@mutant
def neighbours_poisoned() -> Iterator[None]:
    """A batch with one message that the tables refuse fails as a whole."""
    with patch.object(Writer, "_step_alone", side_effect=RuntimeError("the batch was refused")):
        yield


@mutant
def unreadable_dropped() -> Iterator[None]:
    """A message that cannot be read is acknowledged and not kept."""

    def mutated(self: BatchContext, message: Any) -> None:
        self.actions.acks.append(message.delivery)

    with patch.object(BatchContext, "retry_or_park_undecodable", mutated):
        yield


@mutant
def poison_never_parked() -> Iterator[None]:
    """A message that cannot be read is asked for again and again."""

    def mutated(self: BatchContext, message: Any) -> None:
        self._nack(message.delivery)

    with patch.object(BatchContext, "retry_or_park_undecodable", mutated):
        yield


# Once.


@mutant
def inbox_not_written() -> Iterator[None]:
    """What was dealt with is not noted."""

    def mutated(self: Inbox, connection: Any, ids: Any, now: Any) -> None:
        pass

    with patch.object(Inbox, "add", mutated):
        yield


@mutant
def reservation_decided_anew() -> Iterator[None]:
    """A repeat of an order that outlived the inbox reserves its stock again."""

    def mutated(state: stock.Stock, event: Any, now: Any) -> Any:
        return stock.reserve_stock(msgspec.structs.replace(state, reservation=None), event, now)

    with _reaction(inventory, OrderCreatedEvent, mutated):
        yield


@mutant
def deducted_twice() -> Iterator[None]:
    """A repeat of a completed shipment that outlived the inbox deducts its pieces again."""

    def mutated(state: stock.Stock, event: Any, now: Any) -> Any:
        held = state.reservation
        if held is not None and held.state is stock.ReservationState.SHIPPED:
            held = msgspec.structs.replace(held, state=stock.ReservationState.RESERVED)
        return stock.deduct_stock(msgspec.structs.replace(state, reservation=held), event, now)

    with _reaction(inventory, ShipmentCompletedEvent, mutated):
        yield


@mutant
def second_shipment() -> Iterator[None]:
    """A repeat of a reservation that outlived the inbox opens the shipment again."""
    initiate = parcels.initiate_shipment

    def mutated(shipment: Any, event: Any, now: Any, **options: Any) -> Any:
        return initiate(None, event, now, **options)

    with patch.object(shipping, "initiate_shipment", mutated):
        yield


@mutant
def two_keys_for_a_booking() -> Iterator[None]:
    """A call to the carrier that is made again has another key."""
    book = shipping.book_parcel

    async def mutated(carrier: Any, booking: parcels.BookParcel) -> parcels.RecordAnswer:
        key = f"{booking.shipment_id}-{booking.attempt}"
        return await book(carrier, msgspec.structs.replace(booking, shipment_id=key))

    with patch.object(shipping, "book_parcel", mutated):
        yield


@mutant
def late_event_overwrites_status() -> Iterator[None]:
    """An event that was overtaken sets the order back."""

    def mutated(order: ordering.Order, status: ordering.OrderStatus, now: Any) -> ordering.Order:
        return msgspec.structs.replace(order, status=status, updated_at=now)

    with patch.object(ordering, "_advance", mutated):
        yield


# All or nothing, and undone.


@mutant
def no_compensation() -> Iterator[None]:
    """The stock of a shipment that failed is not released."""

    def mutated(state: stock.Stock, event: Any, now: Any) -> tuple[stock.Stock, list[Event]]:
        return state, []

    with _reaction(inventory, ShipmentFailedEvent, mutated):
        yield


@mutant
def partial_reservation() -> Iterator[None]:
    """Of an order that cannot be fulfilled, what there is gets reserved and shipped."""

    def mutated(state: stock.Stock, event: OrderCreatedEvent, now: Any) -> Any:
        there = tuple(
            item
            for item in event.items
            if item.product_id in state.products
            and state.products[item.product_id].available >= item.quantity
        )
        return stock.reserve_stock(
            state, msgspec.structs.replace(event, items=there or event.items), now
        )

    with _reaction(inventory, OrderCreatedEvent, mutated):
        yield


@mutant
def refusal_not_durable() -> Iterator[None]:
    """That an order was refused is said but not kept."""

    def mutated(state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = stock.reserve_stock(state, event, now)
        held = after.reservation
        refused = held is not None and held.state is stock.ReservationState.REFUSED
        return (state if refused else after), events

    with _reaction(inventory, OrderCreatedEvent, mutated):
        yield


@mutant
def ledger_forgotten() -> Iterator[None]:
    """What is shipped leaves the stock without an entry in the ledger."""
    put = InventoryUnitOfWork.put

    def mutated(self: InventoryUnitOfWork, subject: Any, state: stock.Stock) -> None:
        entries = () if isinstance(subject, ShipmentCompletedEvent) else state.entries
        put(self, subject, msgspec.structs.replace(state, entries=entries))

    with patch.object(InventoryUnitOfWork, "put", mutated):
        yield


@mutant
def restock_forgotten() -> Iterator[None]:
    """A restock is answered and not carried out."""

    def mutated(state: stock.Stock, command: Any, now: Any) -> Any:
        stock.restock(state, command, now)
        return state, []

    with patch.dict(inventory.command_handlers, {stock.Restock: mutated}):
        yield


@mutant
def restocked_twice() -> Iterator[None]:
    """A restock is carried out twice."""

    def mutated(state: stock.Stock, command: Any, now: Any) -> Any:
        once, _ = stock.restock(state, command, now)
        twice, _ = stock.restock(once, command, now)
        return msgspec.structs.replace(twice, entries=once.entries + twice.entries), []

    with patch.dict(inventory.command_handlers, {stock.Restock: mutated}):
        yield


@mutant
def unconfirmed_command_repeated() -> Iterator[None]:
    """A command whose commit nobody confirmed is carried out again."""

    def mutated(self: Process, command: Any) -> None:
        pass

    with patch.object(Process, "_command_id", mutated):
        yield


@mutant
def ledger_tidied() -> Iterator[None]:
    """Restocks are merged into the opening entry, so that the sums stay right."""
    save = InventoryStore.save

    def mutated(self: InventoryStore, connection: Any, unit_of_work: Any, now: Any) -> None:
        save(self, connection, unit_of_work, now)
        connection.exec_driver_sql(
            "UPDATE stock_ledger SET quantity = quantity + ("
            "SELECT coalesce(sum(other.quantity), 0) FROM stock_ledger AS other "
            "WHERE other.product_id = stock_ledger.product_id AND other.reason = 'RESTOCK'"
            ") WHERE reason = 'OPENING'"
        )
        connection.exec_driver_sql("DELETE FROM stock_ledger WHERE reason = 'RESTOCK'")

    with patch.object(InventoryStore, "save", mutated):
        yield


@mutant
def ended_orders_tidied_away() -> Iterator[None]:
    """An order is deleted when it has ended."""
    save = OrdersStore.save

    def mutated(self: OrdersStore, connection: Any, unit_of_work: Any, now: Any) -> None:
        save(self, connection, unit_of_work, now)
        connection.exec_driver_sql("DELETE FROM orders WHERE status = 'COMPLETED'")

    with patch.object(OrdersStore, "save", mutated):
        yield


@mutant
def order_placed_anew() -> Iterator[None]:
    """Asking again with the id of an order that is there is answered as if it were new."""

    def mutated(order: ordering.Order | None, command: Any, now: Any) -> Any:
        placed, events = ordering.place_order(None, command, now)
        return placed, [] if order else events

    with patch.dict(orders.command_handlers, {ordering.PlaceOrder: mutated}):
        yield


# What waits.


@mutant
def claim_never_expires() -> Iterator[None]:
    """A call to the carrier that was never answered is never made again."""
    when_due = parcels.when_due

    def mutated(shipment: parcels.Shipment, now: Any) -> Any:
        claimed, effects = when_due(shipment, now)
        if effects:
            claimed = msgspec.structs.replace(claimed, due_at=now + timedelta(days=3650))
        return claimed, effects

    with patch.object(shipping, "when_due", mutated):
        yield


@mutant
def due_rows_forgotten_at_start() -> Iterator[None]:
    """What fell due while no process ran is not looked for when one starts."""
    start = Process.start

    async def mutated(self: Process) -> None:
        await start(self)
        self._next_due_at = None

    with patch.object(Process, "start", mutated):
        yield


@mutant
def history_incomplete() -> Iterator[None]:
    """That a shipment was opened is not noted in the order's history."""
    record = OrdersUnitOfWork.record

    def mutated(self: OrdersUnitOfWork, envelope: Any) -> None:
        if envelope.type != "ShipmentInitiatedEvent":
            record(self, envelope)

    with patch.object(OrdersUnitOfWork, "record", mutated):
        yield


def _reaction(
    service: Any, event: type[Event], mutated: Callable[[Any, Any, Any], Any]
) -> AbstractContextManager[Any]:
    return patch.dict(service.event_handlers, {event: mutated})


def main(names: Sequence[str]) -> int:
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

"""Retry, edit and discard dead letters.

The causes are real ones: bytes that are no event, an unknown type, an event that contradicts an earlier
one or comes long before its cause, a row that a CHECK refuses. Everything goes through the three
services on one broker, in virtual time.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import select

from engine.virtual import START, until
from system.test_process import Town, in_town, order_id
from todoku.broker.port import Delivery
from todoku.contracts import (
    OrderCreatedEvent,
    OrderedItem,
    ReservedItem,
    ShipmentCompletedEvent,
    ShippedItem,
    StockReservedEvent,
    decode,
    encode,
    seal,
)
from todoku.engine import Process
from todoku.engine.dead_letters import (
    Attempt,
    DeadLetter,
    DeadLetterResolved,
    DeadLetterState,
    DiscardDeadLetter,
    EditDeadLetter,
    InvalidEdit,
    RedeliveryFailed,
    RetryDeadLetter,
    RetryDeadLetters,
    UnknownDeadLetter,
    group_of,
    shape,
)
from todoku.engine.messages import IncomingEvent
from todoku.events import EventRegistry, UnknownEventType, read_envelope
from todoku.inventory.domain import SetProduct
from todoku.inventory.store import stock_ledger
from todoku.lab.simulation.loop import VirtualClock
from todoku.orders.domain import OrderStatus
from todoku.orders.parking import ParkedMessage
from todoku.orders.placing import PlaceOrder
from todoku.orders.store import find_parked

GARBAGE: Final = b"\xff not an event"
ITEM: Final = OrderedItem(product_id="prod001", quantity=1, price=100)


def place(n: int = 1) -> PlaceOrder:
    return PlaceOrder(order_id=order_id(n), user_id="user", items=(ITEM,), currency="JPY")


def created(n: int = 1, *, quantity: int = 1) -> OrderCreatedEvent:
    item = msgspec.structs.replace(ITEM, quantity=quantity)
    return OrderCreatedEvent(order_id=order_id(n), user_id="user", items=(item,), total_amount=100)


def reserved(n: int = 1, *, quantity: int = 1) -> StockReservedEvent:
    item = ReservedItem(product_id="prod001", quantity=quantity)
    return StockReservedEvent(order_id=order_id(n), items=(item,))


def completed(n: int = 1) -> ShipmentCompletedEvent:
    return ShipmentCompletedEvent(
        order_id=order_id(n),
        shipment_id="shipment",
        tracking_number="T",
        items=(ShippedItem(product_id="prod001", quantity=1),),
    )


def letters(town: Town, service: str) -> list[DeadLetter]:
    """Return a service's dead letters, the oldest first."""
    tables = town.services[service].store.tables.dead_letters
    with town.disks[service].database.read() as connection:
        ids = connection.scalars(
            select(tables.table.c.id).order_by(tables.table.c.parked_at, tables.table.c.id)
        ).all()
        found = [tables.get(connection, letter_id) for letter_id in ids]
    return [letter for letter in found if letter is not None]


def attempts(town: Town, service: str, letter_id: str) -> list[Attempt]:
    tables = town.services[service].store.tables.dead_letters
    with town.disks[service].database.read() as connection:
        return tables.attempts_at(connection, letter_id)


def deductions(town: Town) -> int:
    """Return how many pieces were deducted from stock for orders."""
    with town.disks["inventory"].database.read() as connection:
        found = connection.scalars(
            select(stock_ledger.c.quantity).where(stock_ledger.c.order_id.is_not(None))
        )
        return -sum(found)


def parked_at_orders(town: Town, n: int = 1) -> list[ParkedMessage]:
    """Return the parked messages of an order, as stored by orders."""
    with town.disks["orders"].database.read() as connection:
        return find_parked(connection, [order_id(n)]).get(order_id(n), [])


async def parked(town: Town, service: str, count: int = 1) -> DeadLetter:
    """Wait until there are `count` letters, and return the last."""
    await until(lambda: len(letters(town, service)) == count, every_seconds=0.5)
    return letters(town, service)[-1]


async def stock_up(process: Process) -> None:
    await process.execute(
        SetProduct(product_id="prod001", name="Keyboard", price=100, stock_quantity=10)
    )


@contextmanager
def older_version(*unknown: str) -> Iterator[None]:
    """Run a version of the program that does not know these event types."""
    decode = EventRegistry.decode

    def older(self: EventRegistry, body: bytes, **options: Any) -> Any:
        if read_envelope(body).type in unknown:
            raise UnknownEventType("this version does not know it")
        return decode(self, body, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EventRegistry, "decode", older)
        yield


class TestUndecodableBytes:
    def test_failed_retry_is_recorded_with_its_requester(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.publish(GARBAGE)
            letter = await parked(town, "orders")
            with pytest.raises(RedeliveryFailed, match=r"UndecodableEvent: not a CloudEvents"):
                await process.execute(RetryDeadLetter(letter_id=letter.id, by="alice"))
            (after,) = letters(town, "orders")
            assert (after.state, after.attempts, after.body) == (DeadLetterState.PARKED, 2, GARBAGE)
            assert [a.asked_by for a in attempts(town, "orders", letter.id)] == [None, "alice"]

        in_town(scenario)

    def test_message_without_envelope_cannot_be_edited(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.publish(GARBAGE)
            letter = await parked(town, "orders")
            with pytest.raises(InvalidEdit, match="discard"):
                await process.execute(EditDeadLetter(letter_id=letter.id, data=b"{}"))
            assert letters(town, "orders") == [letter]

        in_town(scenario)

    def test_discarded_letter_is_kept_with_requester_and_reason(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.publish(GARBAGE)
            letter = await parked(town, "orders")
            await process.execute(
                DiscardDeadLetter(letter_id=letter.id, reason="noise", by="alice")
            )
            (after,) = letters(town, "orders")
            assert (after.state, after.reason, after.closed_by) == ("DISCARDED", "noise", "alice")
            assert after.body == GARBAGE
            assert after.closed_at is not None

        in_town(scenario)


class TestUnknownEventType:
    def test_retry_by_a_version_that_knows_the_type_succeeds(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await process.execute(place())
            with older_version("StockReservedEvent"):
                town.publish_events(StockReservedEvent(order_id=order_id(), items=()))
                letter = await parked(town, "orders")
                with pytest.raises(RedeliveryFailed, match="UnknownEventType"):
                    await process.execute(RetryDeadLetter(letter_id=letter.id))
            after = await process.execute(RetryDeadLetter(letter_id=letter.id, by="alice"))
            assert (after.state, after.closed_by, after.error) == ("RETRIED", "alice", None)
            assert town.statuses()[order_id()] == OrderStatus.AWAITING_SHIPMENT
            assert letters(town, "orders") == [after]

        in_town(scenario)

    def test_every_attempt_is_recorded(self) -> None:
        async def scenario(town: Town) -> None:
            await town.start("orders")
            with older_version("StockReservedEvent"):
                town.publish_events(StockReservedEvent(order_id=order_id(), items=()))
                letter = await parked(town, "orders")
            history = attempts(town, "orders", letter.id)
            assert letter.attempts == len(history) == 12
            assert {attempt.error for attempt in history} == {letter.error}
            assert [attempt.at for attempt in history] == sorted({a.at for a in history})

        in_town(scenario)


class TestContradictoryEvent:
    def test_it_stays_parked_and_its_order_shows_it(self) -> None:
        async def scenario(town: Town) -> None:
            orders, _ = await town.start("orders"), await town.start("inventory")
            await orders.execute(place())  # There is no such product.
            await until(lambda: town.statuses()[order_id()] == OrderStatus.CANCELLED_NO_STOCK)
            town.publish_events(completed())
            letter = await parked(town, "orders")
            with pytest.raises(RedeliveryFailed, match="ContradictoryEvent"):
                await orders.execute(RetryDeadLetter(letter_id=letter.id))
            assert town.statuses()[order_id()] == OrderStatus.CANCELLED_NO_STOCK
            await until(lambda: len(parked_at_orders(town)) == 2)
            shown = {
                message.service: (message.letter_id, message.message_type, message.error)
                for message in parked_at_orders(town)
            }
            same = (letter.id, "ShipmentCompletedEvent", "ContradictoryEvent")
            assert shown == {"orders": same, "inventory": same}

        in_town(scenario)


class TestEventLongBeforeItsCause:
    def test_retry_after_the_cause_completes_the_saga(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await town.start("inventory")
            await stock_up(inventory)
            products = town.pending("inventory")
            town.publish_events(completed())
            letter = await parked(town, "inventory")
            town.publish_events(created())
            await until(lambda: town.pending("inventory") > 1 + products)
            await inventory.execute(RetryDeadLetter(letter_id=letter.id))
            assert deductions(town) == 1
            with pytest.raises(DeadLetterResolved):
                await inventory.execute(RetryDeadLetter(letter_id=letter.id))
            town.publish_events(completed())
            await until(lambda: town.broker.consumed("inventory") == town.broker.last_sequence)
            assert deductions(town) == 1

        in_town(scenario)

    @pytest.mark.parametrize("point", ["before-commit", "after-commit"])
    def test_crash_during_a_retry_loses_nothing_and_doubles_nothing(self, point: str) -> None:
        async def scenario(town: Town) -> None:
            inventory = await town.start("inventory")
            await stock_up(inventory)
            products = town.pending("inventory")
            town.publish_events(completed())
            letter = await parked(town, "inventory")
            town.publish_events(created())
            await until(lambda: town.pending("inventory") > 1 + products)
            await crash_at(town, inventory, point, RetryDeadLetter(letter_id=letter.id))
            again = await town.start("inventory")
            if point == "before-commit":
                await again.execute(RetryDeadLetter(letter_id=letter.id))
            else:
                with pytest.raises(DeadLetterResolved):
                    await again.execute(RetryDeadLetter(letter_id=letter.id))
            assert deductions(town) == 1
            assert letters(town, "inventory")[0].state == DeadLetterState.RETRIED

        in_town(scenario)

    def test_retry_whose_commit_result_was_lost_is_executed_once(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await town.start("inventory")
            await stock_up(inventory)
            products = town.pending("inventory")
            town.publish_events(completed())
            letter = await parked(town, "inventory")
            town.publish_events(created())
            await until(lambda: town.pending("inventory") > 1 + products)
            town.disks["inventory"].faults = ["after"]
            with pytest.raises(DeadLetterResolved):
                await inventory.execute(RetryDeadLetter(letter_id=letter.id))
            assert deductions(town) == 1

        in_town(scenario)


async def crash_at(town: Town, process: Process, point: str, command: Any) -> None:
    """Crash a process at a failpoint while it executes a command."""

    class Crashed(BaseException):
        """As by `kill -9`."""

    def die(reached: str) -> None:
        if reached == point:
            raise Crashed

    process.writer._failpoint = die
    executing = process.execute(command)
    with pytest.raises(TimeoutError):
        await _wait_a_second(executing)
    town.kill(process)
    town.running.remove(town.running_of(process))


async def _wait_a_second(executing: Any) -> None:
    async with asyncio.timeout(1):
        await executing


class TestRowRefusedByACheck:
    def test_correction_replaces_it_and_the_saga_completes(self) -> None:
        async def scenario(town: Town) -> None:
            orders, shipping = await town.start("orders"), await town.start("shipping")
            await orders.execute(place())
            town.publish_events(reserved(quantity=0))
            letter = await parked(town, "shipping")
            with pytest.raises(RedeliveryFailed, match="quantity_positive"):
                await shipping.execute(RetryDeadLetter(letter_id=letter.id))
            data = msgspec.json.encode(reserved())
            successor = await shipping.execute(
                EditDeadLetter(letter_id=letter.id, data=data, by="alice")
            )
            before = next(one for one in letters(town, "shipping") if one.id == letter.id)
            assert (before.state, before.replaced_by) == (DeadLetterState.EDITED, successor.id)
            assert (successor.state, successor.replaces) == (DeadLetterState.RETRIED, letter.id)
            envelope, event = decode(successor.body)
            assert (envelope.actor, envelope.source) == ("alice", "shipping")
            assert event == reserved()
            await until(lambda: town.statuses()[order_id()] == OrderStatus.COMPLETED)
            assert parked_at_orders(town) == []

        in_town(scenario)

    @pytest.mark.parametrize("point", ["before-commit", "after-commit"])
    def test_crash_during_an_edit_loses_nothing_and_doubles_nothing(self, point: str) -> None:
        async def scenario(town: Town) -> None:
            shipping = await town.start("shipping")
            town.publish_events(reserved(quantity=0))
            letter = await parked(town, "shipping")
            edit = EditDeadLetter(letter_id=letter.id, data=msgspec.json.encode(reserved()))
            await crash_at(town, shipping, point, edit)
            again = await town.start("shipping")
            if point == "before-commit":
                assert letters(town, "shipping") == [letter]
                await again.execute(edit)
            else:
                with pytest.raises(DeadLetterResolved):
                    await again.execute(edit)
            states = sorted(each.state for each in letters(town, "shipping"))
            assert states == [DeadLetterState.EDITED, DeadLetterState.RETRIED]
            assert town.count("shipping", "shipments") == 1
            await until(lambda: len(town.courier.calls) == 1)

        in_town(scenario)

    def test_correction_that_fails_too_is_parked_in_its_place(self) -> None:
        async def scenario(town: Town) -> None:
            shipping = await town.start("shipping")
            town.publish_events(reserved(quantity=0))
            letter = await parked(town, "shipping")
            data = msgspec.json.encode(reserved(quantity=-1))
            successor = await shipping.execute(EditDeadLetter(letter_id=letter.id, data=data))
            assert (successor.state, successor.attempts) == (DeadLetterState.PARKED, 1)
            assert "quantity_positive" in successor.error
            again = await shipping.execute(
                EditDeadLetter(letter_id=successor.id, data=msgspec.json.encode(reserved()))
            )
            assert (again.state, again.replaces) == (DeadLetterState.RETRIED, successor.id)

        in_town(scenario)

    @pytest.mark.parametrize(
        ("data", "complaint"),
        [
            (b'{"orderId": 1}', "invalid StockReservedEvent payload"),
            (msgspec.json.encode(reserved(2)), "the envelope is about"),
            (msgspec.json.encode(reserved())[:-1] + b',"item":[]}', "has no field item"),
        ],
        ids=["against the schema", "about another order", "with a misspelt field"],
    )
    def test_invalid_correction_is_refused_and_changes_nothing(
        self, data: bytes, complaint: str
    ) -> None:
        async def scenario(town: Town) -> None:
            shipping = await town.start("shipping")
            town.publish_events(reserved(quantity=0))
            letter = await parked(town, "shipping")
            with pytest.raises(InvalidEdit, match=complaint):
                await shipping.execute(EditDeadLetter(letter_id=letter.id, data=data))
            assert letters(town, "shipping") == [letter]

        in_town(scenario)


class TestOwnEvent:
    def test_own_event_that_failed_in_a_replay_is_replayed_by_its_correction(self) -> None:
        async def scenario(town: Town) -> None:
            shipping = await town.start("shipping")
            published = completed()
            undecodable = msgspec.structs.replace(
                published, items=(ShippedItem(product_id="prod001", quantity=0),)
            )
            envelope = seal(undecodable, START)
            delivery = Delivery(undecodable.subject, encode(envelope), 99, 1, token=None)
            shipping.writer.step(
                [IncomingEvent(delivery, envelope, undecodable, replayed=True)], START, 0
            )
            (letter,) = letters(town, "shipping")
            with pytest.raises(RedeliveryFailed, match="quantity_positive"):
                await shipping.execute(RetryDeadLetter(letter_id=letter.id))
            data = msgspec.json.encode(published)
            await shipping.execute(EditDeadLetter(letter_id=letter.id, data=data))
            assert town.count("shipping", "shipments") == 1

        in_town(scenario)


class TestParkedMessagesOfAnOrder:
    def test_order_shows_messages_parked_elsewhere_until_they_are_resolved(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await town.start("inventory")
            town.publish_events(created(quantity=0))
            letter = await parked(town, "inventory")
            orders = await town.start("orders")  # It did not run when that happened.
            await orders.execute(place())
            await until(lambda: bool(parked_at_orders(town)))
            (shown,) = parked_at_orders(town)
            assert (shown.service, shown.letter_id) == ("inventory", letter.id)
            assert (shown.message_type, shown.error) == ("OrderCreatedEvent", "AssertionError")
            await inventory.execute(
                DiscardDeadLetter(letter_id=letter.id, reason="noise", by="alice")
            )
            await until(lambda: not parked_at_orders(town))
            await until(lambda: town.pending("inventory") == 0)

        in_town(scenario)

    def test_message_about_an_unknown_order_is_recorded(self) -> None:
        async def scenario(town: Town) -> None:
            await town.start("inventory")
            await town.start("orders")
            town.publish_events(created(quantity=0))
            await until(lambda: bool(parked_at_orders(town)))
            assert letters(town, "orders") == []

        in_town(scenario)

    def test_message_about_no_order_publishes_nothing(self) -> None:
        async def scenario(town: Town) -> None:
            await town.start("inventory")
            town.publish(GARBAGE, subject=OrderCreatedEvent.subject)
            await parked(town, "inventory")
            assert town.pending("inventory") == 0

        in_town(scenario)

    def test_failed_correction_replaces_the_parked_message_of_the_order(self) -> None:
        async def scenario(town: Town) -> None:
            inventory, _ = await town.start("inventory"), await town.start("orders")
            town.publish_events(created(quantity=0))
            letter = await parked(town, "inventory")
            data = msgspec.json.encode(created(quantity=-1))
            successor = await inventory.execute(EditDeadLetter(letter_id=letter.id, data=data))
            await until(lambda: [m.letter_id for m in parked_at_orders(town)] == [successor.id])

        in_town(scenario)


class TestRetryingMany:
    def test_letters_are_retried_at_the_requested_rate(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await waiting(town, 5)
            asked_at = VirtualClock().now()
            scheduled = await inventory.execute(RetryDeadLetters(per_second=2, by="alice"))
            assert scheduled.count == 5
            await until(lambda: {one.state for one in letters(town, "inventory")} == {"RETRIED"})
            closed = sorted(one.closed_at for one in letters(town, "inventory") if one.closed_at)
            waits = [(at - asked_at).total_seconds() for at in closed]
            assert waits == pytest.approx([0, 0.5, 1, 1.5, 2], abs=0.1)
            assert {one.closed_by for one in letters(town, "inventory")} == {"alice"}
            assert deductions(town) == 5

        in_town(scenario)

    def test_next_process_retries_the_rest_of_a_killed_one(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await waiting(town, 4)
            await inventory.execute(RetryDeadLetters(per_second=1))
            await until(lambda: deductions(town) == 2)
            town.kill(inventory)
            await town.start("inventory")
            await until(lambda: deductions(town) == 4)
            assert {one.state for one in letters(town, "inventory")} == {DeadLetterState.RETRIED}

        in_town(scenario)

    def test_letters_of_other_groups_are_not_retried(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await waiting(town, 2)
            town.publish(GARBAGE, subject=OrderCreatedEvent.subject)
            await until(lambda: len(letters(town, "inventory")) == 3)
            group = letters(town, "inventory")[0].error_group
            assert (
                await inventory.execute(RetryDeadLetters(per_second=10, group=group))
            ).count == 2
            await until(lambda: deductions(town) == 2)
            noise = next(one for one in letters(town, "inventory") if one.body == GARBAGE)
            assert (noise.state, noise.attempts) == (DeadLetterState.PARKED, 1)

        in_town(scenario)

    def test_letter_that_fails_again_is_retried_once(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            town.publish(GARBAGE)
            await parked(town, "orders")
            await orders.execute(RetryDeadLetters(per_second=10, by="alice"))
            await until(lambda: letters(town, "orders")[0].attempts == 2)
            batches = orders.counts.batches
            await orders.execute(place())
            assert letters(town, "orders")[0].retry_at is None
            assert orders.counts.batches == batches + 1

        in_town(scenario)

    def test_groups_count_letters_with_the_same_error(self) -> None:
        async def scenario(town: Town) -> None:
            await waiting(town, 3)
            tables = town.services["inventory"].store.tables.dead_letters
            with town.disks["inventory"].database.read() as connection:
                (group,) = tables.groups(connection)
            assert (group.letters, group.keys) == (3, 3)
            assert group.shape.startswith("UnknownReservation: ShipmentCompletedEvent for order …:")

        in_town(scenario)


async def waiting(town: Town, count: int) -> Process:
    """Return an inventory with `count` parked messages whose causes have arrived since."""
    inventory = await town.start("inventory")
    await stock_up(inventory)
    town.publish_events(*(completed(n) for n in range(count)))
    await until(lambda: len(letters(town, "inventory")) == count, every_seconds=0.5)
    town.publish_events(*(created(n) for n in range(count)))
    await until(lambda: town.pending("inventory") >= 2 * count)
    return inventory


class TestRefusedCommands:
    def test_unknown_letter_is_refused(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            with pytest.raises(UnknownDeadLetter):
                await orders.execute(RetryDeadLetter(letter_id=order_id()))

        in_town(scenario)

    def test_one_of_two_commands_at_once_is_refused(self) -> None:
        async def scenario(town: Town) -> None:
            inventory = await waiting(town, 1)
            (letter,) = letters(town, "inventory")
            answers = await asyncio.gather(
                inventory.execute(RetryDeadLetter(letter_id=letter.id)),
                inventory.execute(DiscardDeadLetter(letter_id=letter.id, reason="r", by="b")),
                inventory.execute(RetryDeadLetter(letter_id=letter.id)),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [
                DeadLetter,
                DeadLetterResolved,
                DeadLetterResolved,
            ]
            assert deductions(town) == 1

        in_town(scenario)

    def test_other_commands_of_the_batch_are_executed(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            town.publish(GARBAGE)
            letter = await parked(town, "orders")
            failed, placed = await asyncio.gather(
                orders.execute(RetryDeadLetter(letter_id=letter.id)),
                orders.execute(place()),
                return_exceptions=True,
            )
            assert isinstance(failed, RedeliveryFailed)
            assert placed.id == order_id()

        in_town(scenario)


class TestShapeOfAnError:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (
                "UnknownOrder: X for order 0198c2f0-7b1a-7c3e-9d55-000000000001, which is not here",
                "UnknownOrder: X for order …, which is not here",
            ),
            ("KeyError: 'alice'", "KeyError: …"),
            ("ConstraintViolated: a row\nDETAIL: Failing row contains (alice)", None),
        ],
    )
    def test_shape_omits_what_belongs_to_one_message(
        self, error: str, expected: str | None
    ) -> None:
        assert shape(error) == (expected or "ConstraintViolated: a row")

    def test_errors_of_one_shape_are_one_group(self) -> None:
        assert group_of("E: order 1 is off") == group_of("E: order 22 is off")
        assert group_of("E: order 1 is off") != group_of("F: order 1 is off")


def test_letter_keeps_its_id_however_often_its_message_is_delivered() -> None:
    async def scenario(town: Town) -> None:
        orders = await town.start("orders")
        await orders.execute(place())
        undecodable = encode(seal(created(9), START)).replace(b'"items"', b'"stuff"')
        town.publish(undecodable, undecodable, GARBAGE, GARBAGE)
        await until(lambda: town.broker.consumed("orders") == town.broker.last_sequence)
        town.publish(undecodable, GARBAGE)
        await until(lambda: town.broker.consumed("orders") == town.broker.last_sequence)
        assert len(letters(town, "orders")) == 2

    in_town(scenario)


def test_parked_message_that_outlives_the_inbox_is_announced_once() -> None:
    """Its first parking event may still be in the outbox: a second one would conflict with it."""

    async def scenario(town: Town) -> None:
        inventory = await town.start("inventory")
        undecodable = encode(seal(completed(), START)).replace(b'"items"', b'"stuff"')
        town.publish(undecodable, subject=ShipmentCompletedEvent.subject)
        letter = await parked(town, "inventory")
        assert inventory.writer.maintenance.prune_inbox(START + timedelta(days=1), 100) == 1
        town.publish(undecodable, subject=ShipmentCompletedEvent.subject)
        await until(lambda: town.broker.consumed("inventory") == town.broker.last_sequence)
        assert letters(town, "inventory") == [letter]

    in_town(scenario)

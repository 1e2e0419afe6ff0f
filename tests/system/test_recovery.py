"""A database restored from an old backup is rebuilt from the stream.

The real services on a broker without faults, in virtual time: a backup is taken, more orders are
placed, everything stops, and the system starts with the backup.
"""

import asyncio
from collections import Counter
from datetime import datetime

import msgspec
import pytest
from sqlalchemy import select, text
from uuid_utils import uuid7

from engine.virtual import START, run, until
from system.restoring import SERVICES, System
from todoku.broker.port import Outgoing
from todoku.contracts import (
    CancellationRequestedEvent,
    CancelledItem,
    OrderCancelledEvent,
    OrderCompletedEvent,
    encode,
    seal,
)
from todoku.database import Database, migrate
from todoku.engine import EngineConfig, MailboxFull
from todoku.engine.stream_positions import MARK_COPY
from todoku.inventory.domain import SetProduct
from todoku.orders.cancellation import CancelOrder, TooLateToCancel
from todoku.orders.store import order_events


@pytest.mark.parametrize("restored", [*((name,) for name in SERVICES), SERVICES])
def test_restored_database_is_rebuilt_and_nothing_is_booked_twice(
    restored: tuple[str, ...],
) -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        before = await system.order(4)
        await system.settled()
        backup = {name: system.databases[name].serialize() for name in restored}
        after = await system.order(8)
        ended = (await system.settled()).orders
        calls = Counter(system.carrier.calls)
        await system.stop()

        for name in restored:
            system.databases[name].close()
            system.databases[name] = Database.in_memory(backup[name])
        await system.start()
        # It executes commands during its recovery.
        later = await system.order(2)
        report = await system.settled()

        assert report.findings == ()
        assert report.parked == {}
        assert sum(report.orders.values()) == len(before + after + later)
        for status, count in ended.items():
            assert report.orders[status] >= count
        assert all(system.carrier.calls[key] == count for key, count in calls.items())
        await system.stop()

    run(scenario())


@pytest.mark.parametrize("restored", [*((name,) for name in SERVICES), SERVICES])
@pytest.mark.parametrize("delay_seconds", [0, 5], ids=["too late", "in time"])
def test_cancellation_that_a_restored_database_has_lost_is_decided_as_before(
    restored: tuple[str, ...], delay_seconds: int
) -> None:
    """The backup is from before the orders, so it has neither them nor what was decided about them."""

    async def scenario() -> None:
        system = System(delay_seconds=delay_seconds)
        await system.start()
        await system.stock()
        await system.order(1)
        await system.settled()
        backup = {name: system.databases[name].serialize() for name in restored}
        placed = await system.order(6)
        await until(lambda: system.carrier_called(placed) or delay_seconds > 0, every_seconds=1)
        await system.cancel(placed[:4])
        ended = (await system.settled()).orders
        calls = Counter(system.carrier.calls)
        await system.stop()

        for name in restored:
            system.databases[name].close()
            system.databases[name] = Database.in_memory(backup[name])
        await system.start()
        await until(lambda: system.report().clean and system.report().settled, every_seconds=1)
        report = system.report()

        assert report.parked == {}
        assert report.orders == ended
        assert (ended.get("CANCELLED", 0) > 0) == (delay_seconds > 0)
        assert system.carrier.calls == calls
        await system.stop()

    run(scenario())


def test_restored_orders_database_has_each_ending_once_and_with_its_original_time() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(2)
        await system.settled()
        backup = system.databases["orders"].serialize()
        await system.order(4)
        await system.settled()
        endings = ending_events(system.databases["orders"])
        assert len(endings) == 6
        await system.stop()

        system.databases["orders"].close()
        system.databases["orders"] = Database.in_memory(backup)
        await asyncio.sleep(3600)
        await system.start()
        await until(lambda: len(ending_events(system.databases["orders"])) == 6, every_seconds=1)
        assert (await system.settled()).findings == ()
        assert ending_events(system.databases["orders"]) == endings
        await system.stop()

    run(scenario())


def ending_events(orders: Database) -> set[tuple[str, str, datetime]]:
    """Return the ids, types and times of the ending events in the histories of the orders."""
    columns = (order_events.c.event_id, order_events.c.type, order_events.c.said_at)
    endings = (OrderCompletedEvent.__name__, OrderCancelledEvent.__name__)
    with orders.read() as connection:
        found = connection.execute(select(*columns).where(order_events.c.type.in_(endings)))
        return {(row.event_id, row.type, row.said_at) for row in found}


def test_recovery_ends_however_many_own_messages_cannot_be_decoded() -> None:
    """Each takes one of the messages that were requested, and is requested again."""
    credit = 10

    async def scenario() -> None:
        system = System(EngineConfig(credit=credit))
        await system.start()
        await system.stock()
        session = system.broker.session("somebody")
        await session.start()
        await session.publish([Outgoing("orders.created", b"no event")] * (3 * credit))
        placed = await system.order(6)
        await system.settled()
        await system.stop()
        system.databases["orders"] = Database.in_memory()
        migrate(system.databases["orders"], "todoku.orders")
        await system.start()
        await until(lambda: sum(system.report().orders.values()) == len(placed), every_seconds=1)
        await system.stop()

    run(scenario())


def test_intact_database_needs_no_recovery() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(6)
        await system.settled()
        await system.stop()
        await system.start()
        for process in system.processes.values():
            assert not await process.recovery.needed()
        await system.order(1)
        await system.settled()
        await system.stop()

    run(scenario())


def test_service_that_handles_little_notes_how_far_it_has_come() -> None:
    """So that its backup does not look as if it lacked the messages of others that were in the stream."""

    async def scenario() -> None:
        system = System(EngineConfig(position_lag_max=0))
        await system.start()
        await system.stock()  # Nothing of it is for shipping.
        await until(lambda: noted_place(system, "shipping") == 3, every_seconds=1)
        await system.stop()
        with system.databases["shipping"].transaction() as connection:
            connection.execute(text(MARK_COPY))
        system.broker.purge()
        await system.start()
        await until(lambda: system.processes["shipping"].consumer.caught_up, every_seconds=1)
        assert system.letters("shipping") == []
        await system.stop()

    run(scenario())


def test_service_does_not_note_a_place_behind_what_it_has_not_handled() -> None:
    """A restored database would lack that message, and nothing would tell."""

    async def scenario() -> None:
        system = System(EngineConfig(position_lag_max=0))
        await system.start()
        session = system.broker.session("somebody")
        await session.start()
        newer = CancellationRequestedEvent(order_id="o", change_id="c", items=(), whole=True)
        body = encode(msgspec.structs.replace(seal(newer, START), type="NewerEvent"))
        await session.publish([Outgoing(CancellationRequestedEvent.subject, body)])
        await system.stock()
        await asyncio.sleep(60)  # The message is delivered again and again for longer.
        assert noted_place(system, "shipping") == 0
        await until(lambda: system.letters("shipping") == ["UnknownEventType"], every_seconds=1)
        last = system.broker.last_sequence
        await until(lambda: noted_place(system, "shipping") == last, every_seconds=1)
        await system.stop()

    run(scenario())


def noted_place(system: System, name: str) -> int:
    """Return up to where a service has noted to have handled the stream."""
    rows = system.rows(
        name, "SELECT sequence FROM stream_positions WHERE incarnation LIKE 'memory@%'"
    )
    return max((int(sequence) for (sequence,) in rows), default=0)


def test_deleted_database_is_rebuilt_from_the_stream() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        placed = await system.order(6)
        await system.settled()
        await system.stop()
        system.databases["orders"] = Database.in_memory()
        migrate(system.databases["orders"], "todoku.orders")
        await system.start()
        await until(lambda: sum(system.report().orders.values()) == len(placed), every_seconds=1)
        assert (await system.settled()).findings == ()
        await system.stop()

    run(scenario())


@pytest.mark.parametrize("broker_stops", [False, True], ids=["running", "all stopped"])
def test_broker_rolled_back_under_orders_in_flight_gets_their_events_again(
    broker_stops: bool,
) -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(4)
        await system.settled()
        image = system.broker.image()
        await system.order(8)
        await until(lambda: system.broker.last_sequence > image.last_sequence + 8)
        if broker_stops:
            await system.stop()
        system.broker.roll_back(image)
        if broker_stops:
            await system.start()
        report = await system.settled()
        assert report.findings == ()
        assert report.parked == {}
        assert sum(report.orders.values()) == 12
        assert max(system.carrier.calls.values()) == 1

    run(scenario())


def test_service_that_starts_after_the_broker_was_rolled_back_does_not_recover() -> None:
    """Its position is that of the epoch before; the stream begins behind its first message."""

    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(4)
        await system.settled()
        system.broker.purge()
        await system.order(4)
        await system.settled()
        image = system.broker.image()
        await system.order(4)
        await system.settled()
        system.broker.roll_back(image)
        await until(lambda: system.broker.stream_epoch != image.stream_epoch, every_seconds=1)
        await system.stop()
        await system.start()
        await system.order(4)
        report = await system.settled()
        assert report.findings == ()
        assert report.parked == {}
        assert sum(report.orders.values()) == 16

    run(scenario())


def test_promoted_standby_that_lacks_only_new_orders_gets_them_back() -> None:
    """Nothing that orders consumed is missing, so only the database's timeline shows the loss."""

    def on_timeline(database: Database, timeline: int) -> Database:
        database.exclusive = False
        database.timeline = lambda: timeline  # type: ignore[method-assign]
        return database

    async def scenario() -> None:
        system = System()
        on_timeline(system.databases["orders"], 1)
        await system.start()
        await system.stock()
        await system.order(4)
        await system.settled()
        await asyncio.sleep(30)  # The housekeeping saves the timeline.
        standby = system.databases["orders"].serialize()
        orders, *others = system.running
        for running in others:
            await running.stop()
        stored = system.broker.last_sequence
        await system.order(3)
        await until(lambda: system.broker.last_sequence == stored + 3)
        await orders.stop()
        system.running.clear()

        system.databases["orders"].close()
        system.databases["orders"] = on_timeline(Database.in_memory(standby), 2)
        await system.start()
        await until(lambda: sum(system.report().orders.values()) == 7, every_seconds=1)
        assert (await system.settled()).findings == ()

    run(scenario())


def test_product_is_not_changed_before_the_changes_that_were_lost_are_replayed() -> None:
    """The new version would be the one of a change that was published, and others would ignore it."""

    def change(price: int) -> SetProduct:
        return SetProduct(product_id="prod0", name="A product", price=price)

    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(1)
        await system.settled()
        backup = system.databases["inventory"].serialize()
        await system.processes["inventory"].execute(change(2))
        await system.order(1)
        await system.settled()
        await system.stop()

        system.restore("inventory", backup)
        await system.start()
        inventory = system.processes["inventory"]
        assert not inventory.consumer.replayed
        with pytest.raises(MailboxFull, match="try later"):
            await inventory.execute(change(3))
        entered = SetProduct(product_id="prod9", name="Lost", price=1, stock_quantity=5)
        await inventory.execute(entered)  # The recovery may wait for this one.
        await until(lambda: inventory.consumer.replayed)
        await inventory.execute(change(3))
        await system.settled()

        of_inventory = "SELECT version, price FROM products WHERE id = 'prod0'"
        of_orders = "SELECT version, price FROM catalogue WHERE product_id = 'prod0'"
        assert system.rows("orders", of_orders) == system.rows("inventory", of_inventory)
        assert [price for _, price in system.rows("orders", of_orders)] == [3]

    run(scenario())


def test_no_piece_is_cancelled_of_an_order_whose_cancellation_was_lost() -> None:
    async def scenario() -> None:
        system = System(delay_seconds=60)
        await system.start()
        await system.stock()
        [order_id] = await system.order(1)
        await until(lambda: not system.report().awaited)
        backup = system.databases["orders"].serialize()
        await system.cancel([order_id])
        await until(lambda: not system.report().awaited)
        await system.stop()

        system.restore("orders", backup)
        await system.start()
        orders = system.processes["orders"]
        piece = CancelledItem(product_id="prod0", quantity=1)
        change = CancelOrder(order_id=order_id, change_id=str(uuid7()), items=(piece,))
        assert not orders.consumer.replayed
        with pytest.raises(MailboxFull, match="try later"):
            await orders.execute(change)
        await until(lambda: orders.consumer.replayed)
        with pytest.raises(TooLateToCancel):
            await orders.execute(change)
        assert (await system.settled()).findings == ()

    run(scenario())

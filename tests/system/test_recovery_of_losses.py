"""What a restored database lacks and the stream does not have is named, and nothing is decided before it
is entered again."""

import msgspec
import pytest
from sqlalchemy import text
from uuid_utils import uuid7

from engine.virtual import run, until
from system.restoring import SERVICES, System
from todoku.contracts import OrderedItem, StockAdjustedEvent
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.dead_letters import DiscardDeadLetter, RetryDeadLetters
from todoku.engine.stream_positions import MARK_COPY
from todoku.inventory.domain import Restock
from todoku.orders.placing import PlaceOrder

FEW, MANY = 9, 100


async def restock(system: System, quantity: int = MANY) -> None:
    for n in range(3):
        await system.processes["inventory"].execute(
            Restock(product_id=f"prod{n}", quantity=quantity, adjustment_id=str(uuid7()))
        )


def forget_restocks(system: System) -> None:
    """Take the restocks out of the stream, as if a version had made them that did not publish them."""
    for sequence, message in list(system.broker.messages.items()):
        if message.subject == StockAdjustedEvent.subject:
            system.broker.messages[sequence] = msgspec.structs.replace(message, subject="none")


async def retry_all(system: System, name: str = "inventory") -> None:
    await system.processes[name].execute(RetryDeadLetters(per_second=1_000, by="the operator"))


async def held(system: System, name: str = "inventory") -> None:
    await until(lambda: system.processes[name].recovery.waits_for > 0, every_seconds=1)


async def with_lost_restock(*, in_stream: bool = False) -> System:
    """Return a system whose inventory was restored to before a restock that 20 orders needed."""
    system = System()
    await system.start()
    await system.stock()
    await system.order(3)
    await system.settled()
    backup = system.databases["inventory"].serialize()
    await restock(system)
    await system.order(20)
    assert (await system.settled()).orders.get("CANCELLED_NO_STOCK", 0) == 0
    await system.stop()
    if not in_stream:
        forget_restocks(system)
    system.restore("inventory", backup)
    await system.start()
    return system


def test_restock_comes_back_from_the_stream_and_is_entered_once() -> None:
    async def scenario() -> None:
        system = await with_lost_restock(in_stream=True)
        process = system.processes["inventory"]
        await until(lambda: process.consumer.caught_up, every_seconds=1)
        assert (await system.settled()).findings == ()
        assert system.letters("inventory") == []
        entered = "SELECT reason, sum(quantity) FROM stock_ledger WHERE reason = 'RESTOCK'"
        assert system.rows("inventory", entered) == [("RESTOCK", 3 * MANY)]
        await system.stop()

    run(scenario())


def test_inventory_restored_to_before_a_restock_decides_nothing_until_it_is_entered_again() -> None:
    async def scenario() -> None:
        system = await with_lost_restock()
        ended = system.report().orders
        await held(system)
        assert set(system.letters("inventory")) == {"ReplayFailed"}
        new = await system.order(4)
        await until(lambda: system.broker.last_sequence > 0 and not system.report().settled)
        (finding,) = [each for each in system.report().findings if each.subject == "inventory"]
        assert "the inventory service decides nothing" in finding.problem
        assert {each.invariant for each in system.report().findings} == {"I3"}
        refused = "SELECT count(*) FROM reservations WHERE state = 'REFUSED'"
        assert system.rows("inventory", refused) == [(0,)]

        await restock(system)
        await retry_all(system)
        report = await system.settled()

        assert report.findings == ()
        assert report.parked == {}
        assert sum(report.orders.values()) == sum(ended.values()) + len(new)
        assert "CANCELLED_NO_STOCK" not in report.orders
        assert max(system.carrier.calls.values()) == 1
        await system.stop()

    run(scenario())


def test_inventory_that_does_not_wait_for_a_restock_refuses_what_it_had_reserved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted bug: nothing holds a recovery."""
    monkeypatch.setattr(DeadLetters, "holding", lambda *_: [])

    async def scenario() -> None:
        system = await with_lost_restock()
        process = system.processes["inventory"]
        await until(lambda: process.consumer.caught_up, every_seconds=1)
        ((refused,),) = system.rows(
            "inventory", "SELECT count(*) FROM reservations WHERE state = 'REFUSED'"
        )
        assert refused > 0
        await system.stop()

    run(scenario())


def test_recovery_that_waits_goes_on_waiting_after_a_crash() -> None:
    async def scenario() -> None:
        system = await with_lost_restock()
        await held(system)
        before = len(system.letters("inventory"))
        system.kill()
        await system.start()
        await held(system)
        assert len(system.letters("inventory")) == before
        await restock(system)
        await retry_all(system)
        await until(lambda: system.processes["inventory"].consumer.caught_up, every_seconds=1)
        assert (await system.settled()).findings == ()
        await system.stop()

    run(scenario())


def test_what_was_not_replayed_and_is_discarded_is_not_decided_anew() -> None:
    async def scenario() -> None:
        system = await with_lost_restock()
        await held(system)
        parked = "FROM dead_letters WHERE state = 'PARKED'"
        orders = {order for (order,) in system.rows("inventory", f"SELECT order_id {parked}")}
        for (letter,) in system.rows("inventory", f"SELECT id {parked}"):
            await system.processes["inventory"].execute(
                DiscardDeadLetter(letter_id=letter, reason="tried out", by="the operator")
            )
        process = system.processes["inventory"]
        await until(lambda: process.consumer.caught_up, every_seconds=1)
        known = {
            order for (order,) in system.rows("inventory", "SELECT order_id FROM reservations")
        }
        assert not orders & known
        assert set(system.letters("inventory")) == {"KeyHeld"}
        await retry_all(system)
        await until(lambda: process.writer.position > 0)
        assert set(system.letters("inventory")) == {"KeyHeld"}
        assert not system.letters("orders")
        await system.stop()

    run(scenario())


@pytest.mark.parametrize("stream", ["complete", "purged"])
def test_lost_inventory_waits_for_its_products(stream: str) -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        placed = await system.order(6)
        await system.settled()
        await system.stop()
        if stream == "purged":
            system.broker.purge()
        system.restore("inventory")
        await system.start()
        await held(system)
        assert "DatabaseLost" in system.letters("inventory")
        new = await system.order(1)
        refused = "SELECT count(*) FROM reservations WHERE state = 'REFUSED'"
        assert system.rows("inventory", refused) == [(0,)]

        products = system.rows("inventory", "SELECT id FROM products")
        assert len(products) == (3 if stream == "complete" else 0)
        if stream == "purged":
            await system.stock()
        await retry_all(system)
        await until(lambda: system.report().settled, every_seconds=1)

        report = system.report()
        assert sum(report.orders.values()) == len(placed) + len(new)
        if stream == "complete":
            assert report.findings == ()
            assert report.parked == {}
        else:  # The reservations of the old orders are lost, and named.
            assert {finding.subject for finding in report.findings} == set(placed)
        await system.stop()

    run(scenario())


def test_backup_that_is_older_than_the_stream_holds_the_recovery() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(1)
        await system.settled()
        backup = system.databases["shipping"].serialize()
        await system.order(5)
        await system.settled()
        system.broker.purge()
        await system.order(2)
        await system.settled()
        await system.stop()
        system.restore("shipping", backup)
        await system.start()
        await held(system, "shipping")
        assert system.letters("shipping") == ["DatabaseLost"]
        await retry_all(system, "shipping")
        process = system.processes["shipping"]
        await until(lambda: process.consumer.caught_up, every_seconds=1)
        assert (await system.settled()).findings != ()
        await system.stop()

    run(scenario())


@pytest.mark.parametrize("name", SERVICES)
def test_copy_of_a_database_is_recovered_though_nothing_that_it_consumed_is_missing(
    name: str,
) -> None:
    """Orders accepted since the last message that was consumed are in the stream alone."""

    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(2)
        await system.settled()
        with system.databases[name].transaction() as connection:
            connection.execute(text(MARK_COPY))
        backup = system.databases[name].serialize()
        await system.stop()
        system.restore(name, backup)
        await system.start()
        process = system.processes[name]
        await until(lambda: process.consumer.caught_up, every_seconds=1)
        assert not await process.recovery.needed()
        assert (await system.settled()).findings == ()
        await system.stop()

    run(scenario())


def test_copy_gets_back_orders_that_no_service_had_answered() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(2)
        await system.settled()
        orders, *others = system.running
        with system.databases["orders"].transaction() as connection:
            connection.execute(text(MARK_COPY))
        backup = system.databases["orders"].serialize()
        for running in others:
            await running.stop()
        stored = system.broker.last_sequence
        await system.order(3)
        await until(lambda: system.broker.last_sequence == stored + 3)
        await orders.stop()
        system.running.clear()
        system.restore("orders", backup)
        await system.start()
        await until(lambda: sum(system.report().orders.values()) == 5, every_seconds=1)
        assert (await system.settled()).findings == ()
        await system.stop()

    run(scenario())


@pytest.mark.parametrize("lost", [0, 1, 2])
@pytest.mark.parametrize("name", SERVICES)
def test_recovery_is_needed_if_a_single_message_is_lost(name: str, lost: int) -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(4)
        await system.settled()
        recovery = system.processes[name].recovery
        (service,) = [each for each in system.services if each.name == name]
        subjects = {event.subject for event in service.event_handlers}
        handled = [
            sequence
            for sequence, message in system.broker.messages.items()
            if message.subject in subjects
        ]
        with system.databases[name].transaction() as connection:
            connection.execute(
                text("UPDATE stream_positions SET sequence = :sequence"),
                {"sequence": handled[-1 - lost]},
            )
        assert await recovery.needed() == (lost > 0)
        await system.stop()

    run(scenario())


def test_recovery_that_was_interrupted_begins_again() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        await system.order(6)
        await system.settled()
        await system.stop()
        system.restore("orders")
        await system.start()
        recovering = "SELECT sequence FROM stream_positions WHERE incarnation = 'recovery'"
        await until(lambda: system.rows("orders", recovering) == [(1,)], every_seconds=0.001)
        system.kill()
        await system.start()
        await until(lambda: sum(system.report().orders.values()) == 6, every_seconds=1)
        await until(lambda: system.processes["orders"].consumer.caught_up, every_seconds=1)
        assert system.rows("orders", recovering) == []
        assert (await system.settled()).findings == ()
        await system.stop()

    run(scenario())


def new_order(product_id: str) -> PlaceOrder:
    items = (OrderedItem(product_id=product_id, quantity=1, price=1),)
    return PlaceOrder(order_id=str(uuid7()), user_id="user1", items=items, currency="JPY")

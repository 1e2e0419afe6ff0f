"""An event that the broker refuses is parked; the others are published."""

import pytest

from engine.virtual import START, until
from system.test_dead_letters import ITEM, created, letters, parked, place, stock_up
from system.test_process import Town, in_town, order_id
from todoku.contracts import OrderedItem
from todoku.engine import EventTooLarge
from todoku.engine.dead_letters import DeadLetterState, RetryDeadLetter
from todoku.engine.tables import PendingDelivery
from todoku.events import encode, seal
from todoku.orders.placing import PlaceOrder

MAX = 4_096


def large_order(n: int) -> PlaceOrder:
    items = tuple(
        OrderedItem(product_id=f"product-with-a-long-name-{k:04}", quantity=1, price=100)
        for k in range(100)
    )
    return PlaceOrder(order_id=order_id(n), user_id="user", items=items, currency="JPY")


def test_event_that_the_broker_no_longer_takes_is_parked_and_others_are_published() -> None:
    async def scenario(town: Town) -> None:
        process = await town.start("orders")
        town.broker.stop()
        for n, command in enumerate((place(1), large_order(2), place(3)), 1):
            assert command.order_id == order_id(n)
            await process.execute(command)
        town.broker.max_message_bytes = MAX
        town.broker.start()
        await until(lambda: town.broker.last_sequence == 2)
        [letter] = letters(town, "orders")
        assert letter.key == order_id(2)
        assert letter.error_class == "MessageTooLarge"
        assert "max_payload" in (letter.error or "")
        assert process.relay.events_unpublishable == 1
        await until(lambda: town.pending("orders") == 2)
        assert process.relay.idle

    in_town(scenario)


def test_retry_publishes_it_once_the_broker_takes_it_and_parks_it_again_before() -> None:
    async def scenario(town: Town) -> None:
        process = await town.start("orders")
        town.broker.stop()
        await process.execute(large_order(1))
        town.broker.max_message_bytes = MAX
        town.broker.start()
        await until(lambda: len(letters(town, "orders")) == 1)
        [letter] = letters(town, "orders")
        await process.execute(RetryDeadLetter(letter_id=letter.id, by="operator"))
        await until(lambda: letters(town, "orders")[0].state is DeadLetterState.PARKED)
        assert town.broker.last_sequence == 0

        town.broker.max_message_bytes = None
        await process.execute(RetryDeadLetter(letter_id=letter.id, by="operator"))
        await until(lambda: town.broker.last_sequence == 1)
        assert letters(town, "orders")[0].state is DeadLetterState.RETRIED
        assert town.subjects() == ["orders.created"]

    in_town(scenario)


def test_parking_survives_a_restart_before_it() -> None:
    async def scenario(town: Town) -> None:
        process = await town.start("orders")
        town.broker.stop()
        await process.execute(large_order(1))
        await process.execute(place(2))
        await town.stop(process)
        town.broker.max_message_bytes = MAX
        town.broker.start()
        await town.start("orders")
        await until(lambda: town.broker.last_sequence == 1)
        await until(lambda: len(letters(town, "orders")) == 1)

    in_town(scenario)


def test_command_whose_event_the_broker_does_not_take_is_refused() -> None:
    async def scenario(town: Town) -> None:
        town.broker.max_message_bytes = MAX
        process = await town.start("orders")
        with pytest.raises(EventTooLarge, match="OrderCreatedEvent would be"):
            await process.execute(large_order(1))
        await process.execute(place(2))
        await until(lambda: town.broker.last_sequence == 1)
        assert letters(town, "orders") == []
        assert ITEM.quantity == 1

    in_town(scenario)


def test_retry_publishes_an_event_of_a_newer_version_as_it_is() -> None:
    """This version cannot decode it, and is not its subscriber."""
    body = encode(seal(created(), START)).replace(b'"orderId"', b'"order"')

    async def scenario(town: Town) -> None:
        outbox = town.services["orders"].store.tables.outbox
        event = PendingDelivery("newer", created().subject, body, ("inventory",))
        with town.disks["orders"].transaction() as connection:
            outbox.add(connection, "newer version", 0, [event], START)
        town.broker.max_message_bytes = 100
        process = await town.start("orders")
        letter = await parked(town, "orders")
        town.broker.max_message_bytes = None
        await process.execute(RetryDeadLetter(letter_id=letter.id, by="operator"))
        await until(lambda: town.broker.last_sequence == 1)
        assert town.broker.messages[1].body == body

    in_town(scenario)


def test_parking_ends_where_the_broker_does_not_even_take_that_an_event_is_parked() -> None:
    async def scenario(town: Town) -> None:
        process = await town.start("inventory")
        await stock_up(process)
        await until(lambda: process.relay.idle)
        pending_before = town.pending("inventory")  # The product, for orders, which does not run.
        town.broker.max_message_bytes = 100
        town.publish_events(created())
        await until(lambda: town.count("inventory", "dead_letters") >= 2)
        await until(lambda: process.relay.idle)
        assert [letter.subject for letter in letters(town, "inventory")] == [
            "inventory.reserved",
            "inventory.message_parked",
        ]
        assert town.pending("inventory") == pending_before

    in_town(scenario)


def test_event_that_is_retried_at_the_moment_it_is_parked_is_published() -> None:
    """Its deliveries end with the transaction that parks it, so nothing ends those of the retry."""

    async def scenario(town: Town) -> None:
        process = await town.start("orders")
        town.broker.stop()
        await process.execute(large_order(1))
        town.broker.max_message_bytes = MAX
        town.broker.start()
        await until(lambda: len(letters(town, "orders")) == 1, every_seconds=0)
        town.broker.max_message_bytes = None
        [letter] = letters(town, "orders")
        await process.execute(RetryDeadLetter(letter_id=letter.id, by="operator"))
        await until(lambda: town.broker.last_sequence == 1)
        assert town.pending("orders") == 1

    in_town(scenario)

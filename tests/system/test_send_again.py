"""A service publishes events again that others have lost; nothing happens twice.

The tests delete from the databases and the stream directly, because no known fault loses events.
"""

import asyncio
from typing import Any, Final

import pytest
from sqlalchemy import delete, update

from engine.virtual import until
from system.test_process import Disk, Town, in_town, order_id
from todoku.contracts import OrderedItem
from todoku.engine import Process, RepublishEvents
from todoku.inventory.domain import SetProduct
from todoku.inventory.store import stock_ledger
from todoku.orders.domain import OrderStatus
from todoku.orders.placing import PlaceOrder
from todoku.orders.store import history
from todoku.shipping.domain import Rejected
from todoku.shipping.store import list_shipments, shipments

ADDRESS: Final = "1-1 Chiyoda, Tokyo"
ORDER: Final = PlaceOrder(
    order_id=order_id(),
    user_id="user",
    items=(OrderedItem(product_id="prod001", quantity=1, price=100),),
    currency="JPY",
    shipping_address=ADDRESS,
)
AGAIN: Final = RepublishEvents(key=order_id())


def lose(town: Town, name: str) -> None:
    """Delete what a service has published from its outbox and from the stream."""
    outbox = town.services[name].store.metadata.tables["outbox"]
    with town.disks[name].database.transaction() as connection:
        connection.execute(delete(outbox))
    town.broker.wipe()


async def stock_up(process: Process) -> None:
    await process.execute(
        SetProduct(product_id="prod001", name="Keyboard", price=100, stock_quantity=10)
    )


async def ended(town: Town, status: OrderStatus) -> None:
    """Wait until the order has this status and no delivery is pending."""
    await until(lambda: town.statuses() == {order_id(): status})
    await until(lambda: not any(map(town.pending, town.services)))


def published(events: Any) -> list[str]:
    return [type(event).__name__ for event in events]


class TestRepublishingLostEvents:
    def test_order_whose_event_was_lost_is_completed(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            await orders.execute(ORDER)
            await until(lambda: orders.relay.idle)
            lose(town, "orders")
            await stock_up(await town.start("inventory"))
            await town.start("shipping")
            assert published(await orders.execute(AGAIN)) == ["OrderCreatedEvent"]
            await ended(town, OrderStatus.COMPLETED)

        in_town(scenario)

    def test_lost_reservation_opens_a_shipment_to_the_same_address(self) -> None:
        async def scenario(town: Town) -> None:
            await (await town.start("orders")).execute(ORDER)
            inventory = await town.start("inventory")
            await stock_up(inventory)
            await until(lambda: town.count("inventory", "reservations") == 1)
            lose(town, "inventory")
            await town.start("shipping")
            assert published(await inventory.execute(AGAIN)) == ["StockReservedEvent"]
            await ended(town, OrderStatus.COMPLETED)
            with town.disks["shipping"].database.read() as connection:
                (shipment,) = list_shipments(connection, order_id(), None, 2)
            assert shipment.shipping_address == ADDRESS

        in_town(scenario)

    def test_order_is_cancelled_by_the_republished_refusal(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            await orders.execute(ORDER)
            inventory = await town.start("inventory")
            await until(lambda: town.count("inventory", "reservations") == 1)
            town.kill(orders)
            lose(town, "inventory")
            with town.disks["orders"].database.transaction() as connection:
                table = town.services["orders"].store.metadata.tables["orders"]
                connection.execute(update(table).values(status="PENDING", reason=None))
                connection.execute(delete(town.services["orders"].store.tables.inbox.table))
            await town.start("orders")
            assert published(await inventory.execute(AGAIN)) == ["StockReservationFailedEvent"]
            await ended(town, OrderStatus.CANCELLED_NO_STOCK)

        in_town(scenario)

    @pytest.mark.parametrize("refused", [False, True])
    def test_republished_end_of_a_shipment_reaches_both_subscribers(self, refused: bool) -> None:
        async def scenario(town: Town) -> None:
            town.courier.answers = [Rejected("no room")] if refused else []
            orders = await town.start("orders")
            inventory = await town.start("inventory")
            shipping = await town.start("shipping")
            await stock_up(inventory)
            town.courier.seconds = 5.0
            await orders.execute(ORDER)
            await until(lambda: town.courier.busy == 1 and town.pending("shipping") == 0)
            town.kill(orders)
            town.kill(inventory)
            await until(lambda: town.pending("shipping") == 2)
            lose(town, "shipping")
            await town.start("orders")
            await town.start("inventory")
            expected = "ShipmentFailedEvent" if refused else "ShipmentCompletedEvent"
            assert published(await shipping.execute(AGAIN)) == [expected]
            status = OrderStatus.SHIPMENT_FAILED if refused else OrderStatus.COMPLETED
            await ended(town, status)
            assert deductions(town.disks["inventory"]) == (0 if refused else 1)
            assert len(town.courier.calls) == 1

        in_town(scenario)


def deductions(disk: Disk) -> int:
    """Return how many pieces were deducted from stock for orders."""
    with disk.database.read() as connection:
        found = connection.execute(
            stock_ledger.select().where(stock_ledger.c.order_id.is_not(None))
        )
        return -sum(entry.quantity for entry in found)


class TestRepublishingWithoutLoss:
    def test_republishing_at_any_time_changes_nothing(self) -> None:
        """Each service republishes after every step, before and after the end of the order."""

        async def scenario(town: Town) -> None:
            processes = [await town.start(name) for name in town.services]
            await stock_up(processes[1])
            town.courier.seconds = 1.0
            asking = asyncio.create_task(processes[0].execute(ORDER))
            for _ in range(200):
                for process in processes:
                    await process.execute(AGAIN)
                await asyncio.sleep(0.01)
            await asking
            await ended(town, OrderStatus.COMPLETED)
            for name in town.services:
                assert town.count(name, "dead_letters") == 0
            assert town.count("shipping", "shipments") == 1
            assert len(town.courier.calls) == 1
            assert deductions(town.disks["inventory"]) == 1
            with town.disks["orders"].database.read() as connection:
                entries = history(connection, order_id())
            assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]

        in_town(scenario)

    def test_unknown_order_publishes_nothing(self) -> None:
        async def scenario(town: Town) -> None:
            for name in town.services:
                process = await town.start(name)
                assert await process.execute(AGAIN) == ()
                assert town.pending(name) == 0

        in_town(scenario)

    def test_inconsistent_row_fails_only_its_own_request(self) -> None:
        async def scenario(town: Town) -> None:
            shipping = await town.start("shipping")
            await (await town.start("orders")).execute(ORDER)
            await stock_up(await town.start("inventory"))
            town.courier.answers = [Rejected("no room")]
            await ended(town, OrderStatus.SHIPMENT_FAILED)
            town.kill(shipping)
            with town.disks["shipping"].database.transaction() as connection:
                connection.execute(update(shipments).values(reason=None))
            shipping = await town.start("shipping")
            with pytest.raises(AssertionError):
                await shipping.execute(AGAIN)
            assert await shipping.execute(RepublishEvents(key=order_id(2))) == ()

        in_town(scenario)


class TestResendingAll:
    def test_pending_deliveries_are_published_again_at_once(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            await orders.execute(ORDER)
            await until(lambda: orders.relay.idle)
            assert town.subjects() == ["orders.created"]
            orders.resend_all()
            await until(lambda: orders.relay.idle)
            assert town.subjects() == ["orders.created"] * 2
            await stock_up(await town.start("inventory"))
            await until(lambda: town.pending("orders") == 0)
            assert town.count("inventory", "reservations") == 1

        in_town(scenario)

    def test_without_pending_deliveries_nothing_is_published(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            orders.resend_all()
            await orders.execute(ORDER)
            await until(lambda: orders.relay.idle)
            assert town.subjects() == ["orders.created"]

        in_town(scenario)

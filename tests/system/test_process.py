"""A running process: the loops around the writer, on an in-memory broker and in virtual time."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import Connection, func, select, update

from engine.virtual import START, VirtualClock, inline, run, until
from todoku.broker import Outgoing
from todoku.broker.memory import MemoryBroker, MemorySession
from todoku.contracts import (
    Event,
    OrderedItem,
    ReservedItem,
    ShipmentCompletedEvent,
    ShippedItem,
    StockReservedEvent,
    encode,
    seal,
)
from todoku.database import Database, DatabaseUnavailable
from todoku.engine import EngineConfig, MailboxFull, Process, ProcessFailed, Service, Topology
from todoku.engine.testing import RunningProcess
from todoku.events import Context, read_envelope
from todoku.inventory.domain import SetProduct
from todoku.orders.domain import OrderStatus
from todoku.orders.placing import InvalidOrder, PlaceOrder
from todoku.orders.store import orders as orders_table
from todoku.settings import Span
from todoku.shipping.carriers import booking_effects
from todoku.shipping.domain import CLAIM_SECONDS, Accepted, Answer, Parcel, ShipmentStatus
from todoku.shipping.store import shipments
from todoku.system import system


class Courier:
    """Return or raise `answers` in turn, then accept every parcel."""

    def __init__(self) -> None:
        self.answers: list[Answer | Exception] = []
        self.calls: list[float] = []
        self.seconds = 0.0
        self.busy = 0
        self.busy_max = 0

    async def book(self, key: str, parcel: Parcel) -> Answer:
        self.calls.append(asyncio.get_running_loop().time())
        self.busy += 1
        self.busy_max = max(self.busy, self.busy_max)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.busy -= 1
        answer = self.answers.pop(0) if self.answers else Accepted("SIM-1")
        if isinstance(answer, Exception):
            raise answer
        return answer


class Disk:
    """A service's database, which outlives its processes and can be unavailable.

    `faults` are what happens to the next transactions: they fail "before" or "after" the commit.
    """

    def __init__(self, service: Service) -> None:
        self.database = Database.in_memory()
        self.exclusive = True
        self.faults: list[str] = []
        with self.database.transaction() as connection:
            service.store.metadata.create_all(connection)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise DatabaseUnavailable("the disk is full")
        with self.database.transaction() as connection:
            yield connection
        if fault == "after":
            raise DatabaseUnavailable("the connection was lost, and with it the answer")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)


class Town:
    """Provide the three services on one broker; a test starts those that it needs."""

    def __init__(self, **config: Any) -> None:
        self.broker = MemoryBroker()
        self.courier = Courier()
        services = system.build(
            system.settings(carrier_delay_seconds=Span(0, 0)), effects=booking_effects(self.courier)
        )
        self.topology = Topology(services)
        self.services = {service.name: service for service in services}
        self.disks = {service.name: Disk(service) for service in services}
        self.config = EngineConfig(**config)
        self.running: list[RunningProcess] = []

    async def start(self, name: str, **settings: Any) -> Process:
        service = self.services[name]
        process = Process(
            service,
            self.disks[name],  # type: ignore[arg-type]
            self.broker.session(name),
            self.topology,
            owner=f"{name}-{len(self.running)}",
            clock=VirtualClock(),
            **{"run_write": inline, "run_read": inline, "config": self.config} | settings,
        )
        running = RunningProcess(process)
        await running.started()
        self.running.append(running)
        return process

    def running_of(self, process: Process) -> RunningProcess:
        return next(running for running in self.running if running.process is process)

    async def stop(self, process: Process) -> None:
        await self.running_of(process).stop()

    def kill(self, process: Process) -> None:
        session = process.broker
        assert isinstance(session, MemorySession)
        session.kill()
        self.running_of(process).kill()

    def publish(self, *bodies: bytes, subject: str = StockReservedEvent.subject) -> None:
        """Put messages into the stream."""
        self.broker.store([Outgoing(subject, body) for body in bodies])

    def publish_events(self, *events: Event) -> None:
        """Put events into the stream, in their envelopes."""
        for event in events:
            self.publish(encode(seal(event, START)), subject=event.subject)

    def subjects(self) -> list[str]:
        """Return the subjects of the messages in the stream."""
        return [message.subject for message in self.broker.messages.values()]

    def pending(self, name: str) -> int:
        """Return how many deliveries of a service wait for a receipt."""
        return self.count(name, "outbox")

    def count(self, name: str, table: str) -> int:
        metadata = self.services[name].store.metadata
        with self.disks[name].database.read() as connection:
            return connection.scalar(select(func.count()).select_from(metadata.tables[table])) or 0

    def statuses(self) -> dict[str, str]:
        """Return the status of each order."""
        with self.disks["orders"].database.read() as connection:
            found = connection.execute(select(orders_table.c.id, orders_table.c.status))
            return {row.id: row.status for row in found}


def in_town(scenario: Callable[[Town], Any], **config: Any) -> None:
    """Run a scenario in virtual time; no process may have failed in it."""

    async def main() -> None:
        town = Town(**config)
        await scenario(town)
        for running in town.running:
            running.raise_if_failed()

    run(main())


def break_writer(process: Process) -> None:
    """Make the next step of the writer raise an error."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    process.writer.step = broken  # type: ignore[method-assign,assignment]


async def first_published(town: Town) -> str:
    """Return the id of the first event in the stream."""
    await until(lambda: bool(town.broker.messages))
    return read_envelope(town.broker.messages[1].body).id


def order_id(n: int = 1) -> str:
    return f"0198c2f0-7b1a-7c3e-9d55-{n:012x}"


def place(n: int = 1, quantity: int = 1) -> PlaceOrder:
    items = (OrderedItem(product_id="prod001", quantity=quantity, price=5000),)
    return PlaceOrder(order_id=order_id(n), user_id="user", items=items, currency="JPY")


def reserved(n: int = 1) -> StockReservedEvent:
    items = (ReservedItem(product_id="prod001", quantity=1),)
    return StockReservedEvent(order_id=order_id(n), items=items)


PRODUCT: Final = SetProduct(product_id="prod001", name="Keyboard", price=5000, stock_quantity=10)


class TestCommands:
    def test_command_is_answered_after_its_commit(self) -> None:
        async def scenario(town: Town) -> None:
            gate = asyncio.Event()

            async def slow_disk(function: Any, *arguments: Any) -> Any:
                await gate.wait()
                return function(*arguments)

            process = await town.start("orders")
            process._run_write = slow_disk
            asking = asyncio.create_task(process.execute(place()))
            await asyncio.sleep(60)
            assert not asking.done()
            assert town.statuses() == {}
            gate.set()
            order = await asking
            assert order.status is OrderStatus.PENDING
            assert town.statuses() == {order_id(): "PENDING"}

        in_town(scenario)

    def test_error_of_the_decision_is_raised_to_the_caller(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            with pytest.raises(InvalidOrder):
                await process.execute(place(quantity=0))

        in_town(scenario)

    def test_cancelled_wait_does_not_undo_the_command(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            asking = asyncio.create_task(process.execute(place()))
            await asyncio.sleep(0)
            asking.cancel()
            await until(lambda: order_id() in town.statuses())
            assert (await process.execute(place())).status is OrderStatus.PENDING

        in_town(scenario)

    def test_commands_beyond_the_limit_are_refused_at_once(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            asking = [asyncio.create_task(process.execute(place(n))) for n in range(4)]
            await asyncio.sleep(1)
            assert [type(task.exception()) for task in asking] == [
                type(None),
                type(None),
                MailboxFull,
                MailboxFull,
            ]

        in_town(scenario, commands_max=2)


class TestUnavailableDatabase:
    def test_command_waits_until_the_database_is_back_and_is_executed_once(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.disks["orders"].faults = ["before"] * 5
            asking = asyncio.create_task(process.execute(place()))
            await asyncio.sleep(0.2)
            assert not process.database_available
            assert not asking.done()
            await asking
            assert process.database_available
            assert town.pending("orders") == 1
            assert town.subjects() == ["orders.created"]

        in_town(scenario)

    def test_nothing_is_resent_while_receipts_cannot_be_recorded(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await process.execute(place())
            await until(lambda: process.relay.idle)
            town.disks["orders"].faults = ["before"] * 1_000
            await town.start("inventory")
            await asyncio.sleep(60)
            assert not process.database_available
            assert process.relay.events_repeated == 0
            town.disks["orders"].faults = []
            await until(lambda: town.pending("orders") == 0)

        in_town(scenario)

    def test_commit_whose_result_was_lost_is_published_without_a_restart(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await process.execute(place(1))
            town.disks["orders"].faults = ["after"]
            order = await process.execute(place(2))
            assert order.id == order_id(2)
            await until(lambda: process.relay.idle)
            await process.execute(place(3))
            await until(lambda: process.relay.idle)
            assert town.subjects() == ["orders.created"] * 3

        in_town(scenario)

    def test_adoption_whose_result_was_lost_is_published_without_a_restart(self) -> None:
        async def scenario(town: Town) -> None:
            town.disks["orders"].exclusive = False
            town.broker.stop()
            first = await town.start("orders")
            await first.execute(place(1))
            town.kill(first)
            second = await town.start("orders")
            town.broker.start()
            await asyncio.sleep(17)  # At 20 s it finds that the lease of the first has run out.
            town.disks["orders"].faults = ["after"]
            assert town.subjects() == []
            await until(lambda: town.subjects() == ["orders.created"])
            await second.execute(place(2))
            await until(lambda: second.relay.idle)
            assert town.subjects() == ["orders.created"] * 2

        in_town(scenario, lease_seconds=15.0)


class TestReceipts:
    def test_outboxes_are_empty_once_all_subscribers_have_committed(self) -> None:
        async def scenario(town: Town) -> None:
            processes = [await town.start(name) for name in town.services]
            await processes[1].execute(PRODUCT)
            await processes[0].execute(place())
            await until(lambda: town.statuses()[order_id()] == OrderStatus.COMPLETED)
            await until(lambda: not any(town.pending(name) for name in town.services))
            await until(lambda: "orders.completed" in town.subjects())
            assert town.subjects() == [
                "inventory.product_changed",
                "orders.created",
                "inventory.reserved",
                "shipping.initiated",
                "shipping.completed",
                "orders.completed",
            ]

        in_town(scenario)

    def test_outbox_keeps_an_event_without_receipt(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await process.execute(place())
            await asyncio.sleep(3600)
            assert town.pending("orders") == 1

        in_town(scenario)

    def test_lost_receipt_costs_one_resend(self) -> None:
        async def scenario(town: Town) -> None:
            town.broker.hostility.drop_notify = 1.0
            orders, _ = await town.start("orders"), await town.start("inventory")
            await orders.execute(place())
            await until(lambda: town.count("inventory", "inbox") == 1)
            town.broker.hostility.drop_notify = 0.0
            await until(lambda: town.pending("orders") == 0)
            assert town.subjects().count("orders.created") == 2
            assert town.count("inventory", "reservations") == 1

        in_town(scenario)

    def test_receipt_is_sent_after_the_commit(self) -> None:
        async def scenario(town: Town) -> None:
            listener = town.broker.session("listener")
            await listener.start()
            incoming: list[int] = []
            await listener.listen(
                "receipts.inventory", lambda _: incoming.append(town.count("orders", "inbox"))
            )
            orders = await town.start("orders")
            await orders.execute(place())
            town.publish_events(reserved())
            await until(lambda: bool(incoming))
            assert incoming == [1]

        in_town(scenario)

    def test_receipts_go_to_the_process_that_published(self) -> None:
        async def scenario(town: Town) -> None:
            listener = town.broker.session("listener")
            await listener.start()
            bodies: list[bytes] = []
            orders = await town.start("orders")
            await listener.listen(
                f"receipts.orders.inventory.{orders.relay.owner_token}", bodies.append
            )
            await listener.listen("receipts.orders", bodies.append)
            await town.start("inventory")
            await orders.execute(place())
            await until(lambda: bool(bodies))
            assert msgspec.json.decode(bodies[0])["reader"] == "inventory"
            await until(lambda: town.pending("orders") == 0)
            assert len(bodies) == 1

        in_town(scenario)

    def test_receipt_of_the_version_before_is_understood(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            await orders.execute(place())
            event_id = await first_published(town)
            body = msgspec.json.encode({"reader": "inventory", "ids": [event_id]})
            town.broker.notify("receipts.orders", body)
            await until(lambda: town.pending("orders") == 0)

        in_town(scenario)

    def test_receipt_in_the_name_of_another_reader_is_ignored(self) -> None:
        async def scenario(town: Town) -> None:
            orders = await town.start("orders")
            await orders.execute(place())
            event_id = await first_published(town)
            owner = orders.relay.owner_token
            forged = msgspec.json.encode({"reader": "inventory", "ids": [event_id]})
            town.broker.notify(f"receipts.orders.shipping.{owner}", forged)
            await orders.execute(place(2))  # Its batch would have taken the receipt.
            assert town.pending("orders") == 2

        in_town(scenario)

    @pytest.mark.parametrize(
        "body",
        [b"", b"not JSON", b"{}", b'{"reader":"\xff","ids":[]}', b'{"reader":' + b"[" * 100_000],
        ids=["empty", "text", "no fields", "not UTF-8", "bottomless"],
    )
    def test_undecodable_receipt_is_ignored(self, body: bytes) -> None:
        async def scenario(town: Town) -> None:
            problems: list[Any] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, what: problems.append(what))
            process = await town.start("orders")
            town.broker.notify("receipts.orders", body)
            await process.execute(place())
            assert problems == []

        in_town(scenario)


class TestMessagesThatFail:
    @pytest.mark.parametrize(
        "undecodable",
        [
            b"\xff",
            b"[" * 100_000,
            encode(seal(reserved(9), START)).replace(b'"items"', b'"stuff"'),
            encode(seal(reserved(9), START)).replace(b'"time":"', b'"time":"x'),
        ],
        ids=["not JSON", "bottomless", "lacks a field", "no instant"],
    )
    def test_undecodable_message_is_parked_once_and_blocks_nothing(
        self, undecodable: bytes
    ) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await process.execute(place())
            town.publish(undecodable)
            town.publish_events(reserved())
            town.publish(undecodable, undecodable)
            await until(lambda: town.statuses()[order_id()] == OrderStatus.AWAITING_SHIPMENT)
            await until(lambda: town.broker.consumed("orders") == 4 + 1)
            assert town.count("orders", "dead_letters") == 1

        in_town(scenario)

    def test_failing_event_is_parked_after_its_last_attempt(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.publish_events(reserved(404))
            await until(lambda: town.count("orders", "dead_letters") == 1)
            assert asyncio.get_running_loop().time() == pytest.approx(1 + 2 + 4 + 8, abs=0.1)
            assert process.counts.nacked == 4
            assert process.counts.parked == 1
            assert town.broker.consumed("orders") == 1

        in_town(scenario)

    def test_event_before_its_cause_is_retried_until_the_cause_is_there(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.publish_events(reserved())
            await asyncio.sleep(2)
            await process.execute(place())
            await until(lambda: town.statuses()[order_id()] == OrderStatus.AWAITING_SHIPMENT)
            assert town.count("orders", "dead_letters") == 0

        in_town(scenario)

    def test_event_of_a_newer_version_is_retried_and_then_parked(self) -> None:
        async def scenario(town: Town) -> None:
            await town.start("orders")
            body = encode(seal(reserved(), START)).replace(b"StockReservedEvent", b"StockLostEvent")
            town.publish(body)
            await asyncio.sleep(300)
            assert town.count("orders", "dead_letters") == 0
            await until(lambda: town.count("orders", "dead_letters") == 1)

        in_town(scenario)


class TestStarting:
    def test_new_process_publishes_pending_deliveries_of_a_killed_one(self) -> None:
        async def scenario(town: Town) -> None:
            town.broker.stop()
            first = await town.start("orders")
            for n in range(3):
                await first.execute(place(n))
            town.kill(first)
            town.broker.start()
            second = await town.start("orders")
            await until(lambda: second.relay.idle)
            assert town.subjects() == ["orders.created"] * 3

        in_town(scenario)

    def test_commands_are_executed_without_a_broker(self) -> None:
        async def scenario(town: Town) -> None:
            town.broker.stop()
            process = await town.start("orders")
            assert (await process.execute(place())).status is OrderStatus.PENDING
            assert not process.connected

        in_town(scenario)

    def test_failed_loop_ends_the_process(self) -> None:
        async def main() -> None:
            town = Town()
            process = await town.start("orders")
            break_writer(process)
            process.mailbox.wake()
            with pytest.raises(ZeroDivisionError):
                await town.running_of(process).ended()

        run(main())

    def test_pending_command_fails_with_unknown_result_when_a_loop_fails(self) -> None:
        async def main() -> None:
            town = Town()
            process = await town.start("orders")
            break_writer(process)
            asking = asyncio.create_task(process.execute(place()))
            with pytest.raises(ZeroDivisionError):
                await town.running_of(process).ended()
            with pytest.raises(ProcessFailed, match="ZeroDivisionError"):
                await asking

        run(main())

    def test_commands_are_refused_beyond_the_backlog_limit_until_the_broker_is_back(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await until(lambda: process.connected)
            town.broker.stop()
            for number in range(3):
                await process.execute(place(number))
            with pytest.raises(MailboxFull, match="3 events wait for the broker"):
                await process.execute(place(4))
            town.broker.start()
            await until(lambda: process.relay.idle)
            await process.execute(place(4))

        in_town(scenario, backlog_max=3)


class TestStopping:
    def test_commands_in_the_mailbox_are_finished(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            asking = [asyncio.create_task(process.execute(place(n))) for n in range(30)]
            await asyncio.sleep(0)
            await town.stop(process)
            assert len(await asyncio.gather(*asking)) == 30
            assert len(town.statuses()) == 30

        in_town(scenario, batch_max=4)

    def test_running_effect_is_finished_and_recorded(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 3
            process = await town.start("shipping")
            town.publish_events(reserved())
            await until(lambda: town.courier.busy == 1)
            await town.stop(process)
            assert _shipments(town) == [(ShipmentStatus.COMPLETED, 1)]

        in_town(scenario)

    def test_unavailable_database_delays_the_stop_by_seconds_only(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.disks["orders"].faults = ["before"] * 1_000
            asking = asyncio.create_task(process.execute(place()))
            await asyncio.sleep(1)
            before = asyncio.get_running_loop().time()
            await town.stop(process)
            assert asyncio.get_running_loop().time() - before < 5
            with pytest.raises(ProcessFailed, match="stopped"):
                await asking

        in_town(scenario)

    def test_no_new_effect_is_started(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 3
            process = await town.start("shipping")
            town.publish_events(reserved(1))
            await until(lambda: town.courier.busy == 1)
            town.publish_events(reserved(2))
            await town.stop(process)
            assert len(town.courier.calls) == 1

        in_town(scenario, effects_max=1)


def _shipments(town: Town) -> list[tuple[str, int]]:
    with town.disks["shipping"].database.read() as connection:
        found = connection.execute(select(shipments.c.status, shipments.c.attempts))
        return [(row.status, row.attempts) for row in found]


class TestEffects:
    def test_claim_is_committed_before_the_call(self) -> None:
        async def scenario(town: Town) -> None:
            seen: list[list[tuple[str, int]]] = []
            book = town.courier.book

            async def look_and_book(key: str, parcel: Parcel) -> Answer:
                seen.append(_shipments(town))
                return await book(key, parcel)

            town.courier.book = look_and_book  # type: ignore[method-assign]
            await town.start("shipping")
            town.publish_events(reserved())
            await until(lambda: _shipments(town) == [(ShipmentStatus.COMPLETED, 1)])
            assert seen == [[(ShipmentStatus.BOOKING, 1)]]

        in_town(scenario)

    def test_carrier_call_that_raises_is_repeated(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.answers = [ConnectionError("cut off"), ConnectionError("cut off")]
            await town.start("shipping")
            town.publish_events(reserved())
            await until(lambda: _shipments(town) == [(ShipmentStatus.COMPLETED, 3)])
            assert town.courier.calls == pytest.approx([0, 2, 2 + 4], abs=0.1)

        in_town(scenario)

    def test_carrier_call_without_answer_is_repeated_when_the_claim_is_over(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 1_000
            await town.start("shipping")
            town.publish_events(reserved())
            await until(lambda: len(town.courier.calls) == 1)
            town.courier.seconds = 0
            await until(lambda: _shipments(town) == [(ShipmentStatus.COMPLETED, 2)])
            assert town.courier.calls == pytest.approx([0, CLAIM_SECONDS], abs=0.1)

        # Shorter than the carrier's own limit, which would be an answer: the outcome is unknown.
        in_town(scenario, effect_timeout_seconds=5)

    def test_claim_of_a_killed_process_falls_due_at_the_next(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 1_000
            first = await town.start("shipping")
            town.publish_events(reserved())
            await until(lambda: len(town.courier.calls) == 1)
            town.kill(first)
            town.courier.seconds = 0
            await town.start("shipping")
            await until(lambda: _shipments(town) == [(ShipmentStatus.COMPLETED, 2)])

        in_town(scenario)

    def test_context_of_the_request_survives_a_kill_between_claim_and_answer(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 1_000
            first = await town.start("shipping")
            sealed = seal(reserved(), START, Context("alice", "00-trace-01", "vendor=1"))
            town.publish(encode(sealed))
            await until(lambda: len(town.courier.calls) == 1)
            town.kill(first)
            town.courier.seconds = 0
            await town.start("shipping")
            await until(lambda: ShipmentCompletedEvent.subject in town.subjects())
            (completed,) = (
                read_envelope(message.body)
                for message in town.broker.messages.values()
                if message.subject == ShipmentCompletedEvent.subject
            )
            assert completed.context == Context("alice", "00-trace-01", "vendor=1")

        in_town(scenario)

    def test_no_more_effects_run_than_there_are_slots(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 1
            await town.start("shipping")
            town.publish_events(*(reserved(n) for n in range(20)))
            await until(lambda: _shipments(town) == [(ShipmentStatus.COMPLETED, 1)] * 20)
            assert town.courier.busy_max == 3

        in_town(scenario, effects_max=3)

    def test_failed_effects_free_their_slots(self) -> None:
        async def scenario(town: Town) -> None:
            town.courier.seconds = 1_000
            await town.start("shipping")
            town.publish_events(*(reserved(n) for n in range(6)))
            await until(lambda: len(town.courier.calls) == 6, seconds=25)

        in_town(scenario, effects_max=3, effect_timeout_seconds=10)

    def test_due_row_is_handled_in_time_without_any_message(self) -> None:
        async def scenario(town: Town) -> None:
            await town.start("orders")
            shipping = await town.start("shipping")
            town.courier.answers = [ConnectionError("closed for the night")]
            town.publish_events(reserved())
            await until(lambda: len(town.courier.calls) == 1)
            with town.disks["shipping"].database.transaction() as connection:
                connection.execute(update(shipments).values(due_at=START + timedelta(seconds=299)))
            shipping.mailbox.wake()
            await until(lambda: len(town.courier.calls) == 2, 2 * 3600, every_seconds=60)
            assert town.courier.calls[1] == pytest.approx(299, abs=0.1)

        in_town(scenario)


class TestHousekeeping:
    def test_inbox_entries_older_than_the_retention_are_pruned(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            await process.execute(place())
            town.publish_events(reserved())
            await until(lambda: town.count("orders", "inbox") == 1)
            await asyncio.sleep(100)
            town.publish_events(
                ShipmentCompletedEvent(
                    order_id=order_id(),
                    shipment_id="s",
                    tracking_number="t",
                    items=(ShippedItem(product_id="prod001", quantity=1),),
                )
            )
            await until(lambda: town.count("orders", "inbox") == 2)
            await asyncio.sleep(60)
            assert town.count("orders", "inbox") == 1
            await asyncio.sleep(120)
            assert town.count("orders", "inbox") == 0

        in_town(scenario, inbox_retention_seconds=120.0)

    def test_unavailable_database_does_not_end_the_housekeeping(self) -> None:
        async def scenario(town: Town) -> None:
            process = await town.start("orders")
            town.disks["orders"].faults = ["before"] * 3
            await asyncio.sleep(60)
            assert (await process.execute(place())).status is OrderStatus.PENDING

        in_town(scenario)

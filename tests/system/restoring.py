"""The three services on one broker in virtual time, whose databases can be replaced."""

from collections import Counter
from contextlib import ExitStack, suppress
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from uuid_utils import uuid7

from engine.virtual import VirtualClock, inline, until
from todoku.audit import Report
from todoku.broker.memory import MemoryBroker, MemorySession
from todoku.contracts import OrderedItem, fact_id
from todoku.database import Database, migrate
from todoku.engine import EngineConfig, Process, Topology
from todoku.engine.testing import RunningProcess
from todoku.inventory.domain import SetProduct
from todoku.orders.cancellation import CancelOrder, TooLateToCancel
from todoku.orders.placing import PlaceOrder
from todoku.settings import Span
from todoku.shipping.carriers import SimulatedCarrier, booking_effects
from todoku.shipping.domain import Answer, Parcel
from todoku.system import system as todoku

SERVICES = ("orders", "inventory", "shipping")


class CountingCarrier(SimulatedCarrier):
    """Counts how often each parcel is booked."""

    def __init__(self) -> None:
        super().__init__(success_rate=0.6, seed=1)
        self.calls: Counter[str] = Counter()

    async def book(self, key: str, parcel: Parcel) -> Answer:
        self.calls[key] += 1
        return await super().book(key, parcel)


class System:
    """The three services, each with its database, on one broker."""

    def __init__(self, config: EngineConfig | None = None, delay_seconds: float = 0) -> None:
        self.config = config
        self.broker = MemoryBroker()
        self.carrier = CountingCarrier()
        self.services = todoku.build(
            todoku.settings(carrier_delay_seconds=Span(delay_seconds, delay_seconds)),
            effects=booking_effects(self.carrier),
        )
        self.databases: dict[str, Database] = {}
        for name in SERVICES:
            self.databases[name] = Database.in_memory()
            migrate(self.databases[name], todoku[name].package)
        self.processes: dict[str, Process] = {}
        self.starts = self.orders = 0
        self.running: list[RunningProcess] = []

    async def start(self) -> None:
        self.starts += 1
        for service in self.services:
            process = Process(
                service,
                self.databases[service.name],
                self.broker.session(service.name),
                Topology(self.services),
                owner=f"{service.name}-{self.starts}",
                clock=VirtualClock(),
                run_write=inline,
                run_read=inline,
                config=self.config,
            )
            running = RunningProcess(process)
            await running.started()
            self.running.append(running)
            self.processes[service.name] = process

    async def stop(self) -> None:
        for running in self.running:
            await running.stop()
        self.running.clear()

    def kill(self) -> None:
        for running in self.running:
            running.kill()
            session = running.process.broker
            assert isinstance(session, MemorySession)
            session.kill()
        self.running.clear()

    def restore(self, name: str, backup: bytes | None = None) -> None:
        """Replace a database by a backup, or by a new one."""
        self.databases[name].close()
        self.databases[name] = Database.in_memory(backup)
        if backup is None:
            migrate(self.databases[name], todoku[name].package)

    def rows(self, name: str, statement: str) -> list[tuple[Any, ...]]:
        with self.databases[name].read() as connection:
            return [tuple(row) for row in connection.execute(text(statement))]

    def letters(self, name: str, state: str = "PARKED") -> list[str]:
        """Return the classes of the errors of a service's dead letters."""
        errors = self.rows(name, f"SELECT error FROM dead_letters WHERE state = '{state}'")
        return [(error or "").partition(":")[0] for (error,) in errors]

    async def stock(self) -> None:
        for n in range(3):
            await self.processes["inventory"].execute(
                SetProduct(product_id=f"prod{n}", name="A product", price=1, stock_quantity=9)
            )

    async def order(self, count: int) -> list[str]:
        placed = []
        for n in range(count):
            self.orders += 1
            command = PlaceOrder(
                # The carrier's answer depends on it: each run is the same.
                order_id=f"0198c2f0-7b1a-7c3e-9d55-{self.orders:012x}",
                user_id="user1",
                items=(
                    OrderedItem(product_id=f"prod{n % 3}", quantity=1 + n % 2, price=1),
                    OrderedItem(product_id=f"prod{(n + 1) % 3}", quantity=1, price=1),
                ),
                currency="JPY",
            )
            placed.append((await self.processes["orders"].execute(command)).id)
        return placed

    async def cancel(self, order_ids: list[str]) -> None:
        for order_id in order_ids:
            with suppress(TooLateToCancel):
                command = CancelOrder(order_id=order_id, change_id=str(uuid7()))
                await self.processes["orders"].execute(command)

    def carrier_called(self, order_ids: list[str]) -> bool:
        """Return whether the carrier was called for any of these orders."""
        called = {fact_id(order_id, "Shipment") for order_id in order_ids}
        return bool(called & self.carrier.calls.keys())

    async def settled(self) -> Report:
        await until(lambda: self.report().settled, every_seconds=1)
        return self.report()

    def report(self) -> Report:
        with ExitStack() as stack:
            connections = {
                name: stack.enter_context(database.read())
                for name, database in self.databases.items()
            }
            return todoku.audit(connections, VirtualClock().now(), overdue_after=timedelta(0))

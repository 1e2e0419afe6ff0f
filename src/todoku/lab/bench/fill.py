"""Fills a data folder with finished orders, as weeks of use would, to measure at scale.

    python -m todoku.lab.bench.fill DATA_DIR ORDERS [DAYS]
    todoku bench --data-dir DATA_DIR

The writers of the services decide and commit the first orders, so that the databases are as in use; only
the broker is left out. The others are copies of these, at other times. A million orders take about
three minutes of CPU and 3.4 GB.
"""

import asyncio
import sys
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import structlog
from uuid_utils import uuid7

from todoku.broker.port import Delivery
from todoku.contracts import OrderedItem, decode, read_envelope
from todoku.database import Database, DatabaseError, migrate
from todoku.engine import PostCommitActions, Service, Topology
from todoku.engine.messages import IncomingEvent, Message, PendingCommand, Receipt, StoredEvents
from todoku.engine.writer import Writer
from todoku.inventory.domain import SetProduct
from todoku.lab.bench.copies import add_up_stock, beginning_of, copy_orders
from todoku.lab.bench.orders import STOCK
from todoku.orders.placing import PlaceOrder
from todoku.settings import Settings, Span
from todoku.system import system

BATCH = 500
PRODUCTS = 100
USERS = 10_000
FORGOTTEN_AT_ONCE = 50_000
ORIGINALS = 5_000
TIME_TO_DEADLINE = timedelta(days=3_000)
DAYS_MAX = 10_000


class BrokerlessSystem:
    """The services on their databases, which pass events to each other directly."""

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self._services = system.build(settings)
        self._runner = stack.enter_context(asyncio.Runner())
        topology = Topology(self._services)
        self._writers: dict[str, Writer] = {}
        for service in self._services:
            database = stack.enter_context(Database.open(settings.data_dir / f"{service.name}.db"))
            migrate(database, system[service.name].package)
            self._writers[service.name] = Writer(service, database, topology, owner="fill")

    def execute(self, name: str, commands: Sequence[Any], now: datetime) -> None:
        """Execute commands at a service, and process every event that follows from them."""
        self._step(name, [_pending(command) for command in commands], now)

    def leave_open(self, commands: Iterable[Any], now: datetime) -> None:
        """Place orders of which no other service learns."""
        batch = [_pending(command) for command in commands]
        if not batch:
            return
        actions = self._writers["orders"].step(batch, now, BATCH)
        ids = tuple(read_envelope(row.body).id for row in actions.published)
        receipts = [Receipt(reader, ids) for reader in system.names]
        self._writers["orders"].step(receipts, now, 0)

    def forget(self, before: datetime) -> None:
        """Prune the inboxes, as running services do."""
        for writer in self._writers.values():
            while writer.maintenance.prune_inbox(before, FORGOTTEN_AT_ONCE):
                pass

    def _step(self, name: str, batch: Sequence[Message], now: datetime) -> None:
        actions = self._writers[name].step(batch, now, BATCH)
        for _, result in actions.answers:
            if isinstance(result, Exception):
                raise result
        for service in self._services:
            if incoming := _consumed_by(service, actions):
                self._step(service.name, incoming, now)
        for publisher, ids in actions.receipts.items():
            self._writers[publisher.service].step([Receipt(name, tuple(ids))], now, 0)
        if rows := actions.published:
            stored = StoredEvents(rows[0].position - 1, rows[-1].position)
            self._writers[name].step([stored], now, 0)
        if actions.effects:
            self._step(name, [_pending(c) for c in self._perform_effects(name, actions)], now)

    def _perform_effects(self, name: str, actions: PostCommitActions) -> Iterator[Any]:
        """Yield the results of the effects, one after the other."""
        service = next(service for service in self._services if service.name == name)
        for pending in actions.effects:
            effect = pending.effect
            yield self._runner.run(_result(service.effects[type(effect)](effect)))


async def _result(effect: Awaitable[object]) -> object:
    return await effect


def _pending(command: Any) -> PendingCommand:
    return PendingCommand(command, lambda _: None)


def _consumed_by(service: Service, actions: PostCommitActions) -> list[Message]:
    events = [(row, *decode(row.body)) for row in actions.published]
    return [
        IncomingEvent(Delivery(row.subject, row.body, 1, 0, None), envelope, event)
        for row, envelope, event in events
        if type(event) in service.event_handlers
    ]


def fill(
    folder: Path,
    orders: int,
    days: float,
    *,
    open_share: float = 0.0,
    originals: int = ORIGINALS,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Place that many orders, spread over the last `days`, and process each to its end; an `open_share`, from
    0 to 1, is left open. Of many, all but `originals` are copies.

    `on_progress` is called with the number of orders so far.
    """
    settings = system.settings(
        data_dir=folder, carrier_delay_seconds=Span(0, 0), carrier_success_rate=0.98
    )
    copies = max(0, orders // originals - 1)
    filling = Filling(settings, orders, days, open_share, on_progress)
    first = originals if copies else orders
    with ExitStack() as stack:
        running = BrokerlessSystem(settings, stack)
        running.execute("inventory", [_product(n) for n in range(PRODUCTS)], filling.begin)
        filling.place(running, range(first))
    if copies:
        filling.copy(copies, first)
    with ExitStack() as stack:
        running = BrokerlessSystem(settings, stack)
        filling.place(running, range(first * (copies + 1), orders))
        running.forget(filling.forgotten)


class Filling:
    """The orders of a folder that is filled, in the sequence of their times."""

    def __init__(
        self,
        settings: Settings,
        orders: int,
        days: float,
        open_share: float,
        on_progress: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._orders = orders
        self._open_share = open_share
        self._on_progress = on_progress
        self._random = Random(orders)
        self._end = datetime.now(UTC)
        self._beginnings: dict[str, None] = {}
        self.begin = self._end - timedelta(days=days)
        self.forgotten = self._end - timedelta(seconds=settings.inbox_retention_seconds)

    def place(self, running: BrokerlessSystem, numbers: range) -> None:
        """Place the orders with these numbers."""
        for done in numbers[::BATCH]:
            count = min(BATCH, numbers.stop - done)
            now = self._time_of(done)
            left_open = round(count * self._open_share)
            orders = [_order(self._random, now) for _ in range(count)]
            running.execute("orders", orders[left_open:], now)
            running.leave_open(map(_patient, orders[:left_open]), now)
            self._beginnings.update((beginning_of(order.order_id), None) for order in orders)
            self._on_progress(done + count)

    def copy(self, copies: int, originals: int) -> None:
        """Copy the orders that were placed so often, each time later."""
        shifts = [self._time_of(originals * n) - self.begin for n in range(1, copies + 1)]
        for service in system.build(self._settings):
            file = self._settings.data_dir / f"{service.name}.db"
            # The last order of a copy is as old as the first one of the next.
            known = {shift: self.begin + shift + shifts[0] >= self.forgotten for shift in shifts}
            copied = copy_orders(file, service.store.metadata, list(self._beginnings), known)
            for n, _ in enumerate(copied, start=1):
                self._on_progress(originals * n)
        add_up_stock(self._settings.data_dir / "inventory.db")

    def _time_of(self, number: int) -> datetime:
        return self.begin + (self._end - self.begin) * number / self._orders


def _product(n: int) -> SetProduct:
    return SetProduct(product_id=f"bench-{n:04}", name="Bench", price=100, stock_quantity=STOCK)


def _order(random: Random, now: datetime) -> PlaceOrder:
    return PlaceOrder(
        order_id=str(uuid7(nanoseconds=int(now.timestamp() * 1e9))),
        user_id=f"bench-user-{random.randrange(USERS)}",
        items=tuple(
            OrderedItem(product_id=f"bench-{n:04}", quantity=1, price=100)
            for n in random.sample(range(PRODUCTS), 2)
        ),
        currency="JPY",
        shipping_address="1-1 Chiyoda, Tokyo",
    )


def _patient(order: PlaceOrder) -> PlaceOrder:
    """Return an order that is not cancelled because it is late."""
    placed_at = UUID(order.order_id).int >> 80
    deadline = datetime.fromtimestamp(placed_at / 1_000, UTC) + TIME_TO_DEADLINE
    return msgspec.structs.replace(order, deadline=deadline)


def main() -> None:
    """Run the command line."""
    parser = ArgumentParser(
        prog="python -m todoku.lab.bench.fill", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="a new folder, or an empty one")
    parser.add_argument("orders", type=_at_least_one, help="how many")
    parser.add_argument("days", type=_days, nargs="?", default=30.0, help="over how many days")
    parser.add_argument(
        "--open-share", type=_share, default=0.0, help="which share of them has not ended, 0 to 1"
    )
    given = parser.parse_args()
    if given.folder.exists() and (not given.folder.is_dir() or any(given.folder.iterdir())):
        parser.error(f"{given.folder} is not empty: name a new folder")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        fill(
            given.folder,
            given.orders,
            given.days,
            open_share=given.open_share,
            on_progress=lambda done: print(f"\r{done:,} orders", end="", file=sys.stderr),
        )
    except DatabaseError as error:
        sys.exit(str(error))
    print(file=sys.stderr)


def _at_least_one(text: str) -> int:
    count = int(text)
    if count < 1:
        raise ValueError(text)
    return count


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:  # So is what is not a number.
        raise ValueError(text)
    return share


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= DAYS_MAX:  # So is what is not a number.
        raise ValueError(text)
    return days


if __name__ == "__main__":
    main()

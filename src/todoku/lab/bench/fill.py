"""Fills a data folder with finished orders, as weeks of use would, to measure at scale.

    python -m todoku.lab.bench.fill DATA_DIR ORDERS [DAYS]
    todoku bench --data-dir DATA_DIR

The writers of the services decide and commit everything, so that the databases are as in use; only
the broker is left out. A million orders take about ten minutes and 3 GB.
"""

import asyncio
import sys
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import structlog
from uuid_utils import uuid7

from todoku.broker.port import Delivery
from todoku.contracts import OrderedItem, decode
from todoku.database import Database, DatabaseError, migrate
from todoku.engine import PostCommitActions, Service, Topology
from todoku.engine.messages import IncomingEvent, Message, PendingCommand, Receipt, StoredEvents
from todoku.engine.writer import Writer
from todoku.inventory.domain import SetProduct
from todoku.lab.bench.orders import STOCK
from todoku.orders.placing import PlaceOrder
from todoku.settings import Settings, Span
from todoku.system import system

BATCH = 500
PRODUCTS = 100
USERS = 10_000
FORGOTTEN_AT_ONCE = 50_000
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

    def forget(self, before: datetime) -> None:
        """Prune the inboxes, as running services do."""
        for writer in self._writers.values():
            while writer.prune_inbox(before, FORGOTTEN_AT_ONCE):
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
            self._writers[publisher].step([Receipt(name, tuple(ids))], now, 0)
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
    folder: Path, orders: int, days: float, *, on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Place that many orders, spread over the last `days`, and process each to its end.

    `on_progress` is called with the number of orders so far.
    """
    settings = system.settings(
        data_dir=folder, carrier_delay_seconds=Span(0, 0), carrier_success_rate=0.98
    )
    random, end = Random(orders), datetime.now(UTC)
    begin = end - timedelta(days=days)
    with ExitStack() as stack:
        running = BrokerlessSystem(settings, stack)
        running.execute("inventory", [_product(n) for n in range(PRODUCTS)], begin)
        for done in range(0, orders, BATCH):
            now = begin + (end - begin) * done / orders
            count = min(BATCH, orders - done)
            running.execute("orders", [_order(random, now) for _ in range(count)], now)
            on_progress(done + count)
        running.forget(end - timedelta(seconds=settings.inbox_retention_seconds))


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


def main() -> None:
    """Run the command line."""
    parser = ArgumentParser(
        prog="python -m todoku.lab.bench.fill", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="a new folder, or an empty one")
    parser.add_argument("orders", type=_at_least_one, help="how many")
    parser.add_argument("days", type=_days, nargs="?", default=30.0, help="over how many days")
    given = parser.parse_args()
    if given.folder.exists() and (not given.folder.is_dir() or any(given.folder.iterdir())):
        parser.error(f"{given.folder} is not empty: name a new folder")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    try:
        fill(
            given.folder,
            given.orders,
            given.days,
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


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= DAYS_MAX:  # So is what is not a number.
        raise ValueError(text)
    return days


if __name__ == "__main__":
    main()

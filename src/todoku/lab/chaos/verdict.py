"""What became of the orders, once everything has settled: the promise, held against a real run."""

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import msgspec
from sqlalchemy import Connection, exists, select

from todoku.audit import Finding, Report, audit
from todoku.database import Database
from todoku.lab.chaos.load import Load
from todoku.orders.domain import OrderStatus
from todoku.orders.store import metadata, orders
from todoku.settings import Settings
from todoku.system import load_system

outbox = metadata.tables["outbox"]
"""Alike in every service."""

LOOK_AGAIN_SECONDS = 0.25


class Verdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether the promise was kept. `lost` are orders that were accepted and are not there;
    `phantoms` counts orders beyond those that were accepted or whose outcome nobody was told.
    `settled_seconds` is how long it took until nothing waited, None if it did not end in time."""

    accepted: int
    orders: dict[str, int]
    lost: tuple[str, ...]
    phantoms: int
    wrong: tuple[str, ...]
    findings: tuple[Finding, ...]
    parked: dict[str, int]
    backlog: dict[str, int]
    settled_seconds: float | None

    @property
    def kept(self) -> bool:
        """Whether everything that was promised is so."""
        return not self.broken

    @property
    def broken(self) -> list[str]:
        """Every broken promise, in a line each that begins with the name of the invariant."""
        return [
            *(f"I1 order {order_id} was accepted and is lost" for order_id in self.lost),
            *([f"I1 {self.phantoms} orders that nobody placed"] if self.phantoms else []),
            *(f"HTTP a request was answered with {answer}" for answer in self.wrong),
            *(f"{each.invariant} {each.subject}: {each.problem}" for each in self.findings),
            *(f"I3 {count} messages parked at {name}" for name, count in self.parked.items()),
            *(
                [f"I3 not settled in time: {self.orders}, receipts awaited: {self.backlog}"]
                if self.settled_seconds is None
                else []
            ),
        ]


def judge(
    settings: Settings,
    load: Load,
    *,
    within_seconds: float = 60.0,
    before: Collection[str] = frozenset(),
) -> Verdict:
    """Wait until all has settled, or that time is over, and hold it against the promise.

    `before` are the orders that were there before the load.
    """
    began = time.monotonic()
    while not _is_settled(settings) and time.monotonic() < began + within_seconds:
        time.sleep(LOOK_AGAIN_SECONDS)
    settled_seconds = round(time.monotonic() - began, 1)
    report = _audited(settings, within_seconds)
    existing = order_ids(settings)
    return Verdict(
        accepted=len(load.accepted),
        orders=report.orders,
        lost=tuple(sorted(load.accepted - existing)),
        phantoms=max(0, len(existing - load.accepted - set(before)) - load.unknown),
        wrong=tuple(load.wrong),
        findings=report.findings,
        parked=report.parked,
        backlog=report.backlog,
        settled_seconds=settled_seconds if report.settled else None,
    )


def _is_settled(settings: Settings) -> bool:
    """Whether every order has ended and no event waits for a receipt."""
    open_orders = ~orders.c.status.in_([status for status in OrderStatus if status.terminal])
    with _reading(settings) as connections:
        if connections["orders"].scalar(select(exists().where(open_orders))):
            return False
        return not any(
            connection.scalar(select(exists().select_from(outbox)))
            for connection in connections.values()
        )


def _audited(settings: Settings, within_seconds: float) -> Report:
    overdue_after = timedelta(seconds=within_seconds)
    with _reading(settings) as connections:
        return audit(connections, datetime.now(UTC), overdue_after=overdue_after)


def order_ids(settings: Settings) -> set[str]:
    """Every order that is there."""
    with _reading(settings) as connections:
        return set(connections["orders"].scalars(select(orders.c.id)))


@contextmanager
def _reading(settings: Settings) -> Iterator[dict[str, Connection]]:
    """The three databases, to be read."""
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(Database.open_read_only(settings.database(name)))
            for name in load_system(settings).names
        }
        yield {name: stack.enter_context(database.read()) for name, database in databases.items()}

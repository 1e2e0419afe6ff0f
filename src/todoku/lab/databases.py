"""Opens all databases of a system, to audit them and to look up orders."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, exists, select

from todoku.audit import Report
from todoku.database import Database
from todoku.orders.changes import ChangeState
from todoku.orders.domain import OrderStatus
from todoku.orders.store import decode_changes, decode_holds, metadata, order_events, orders
from todoku.settings import Settings
from todoku.system import load_system

LOOK_SECONDS = 0.25

_outbox = metadata.tables["outbox"]
"""The same table in every service."""


@contextmanager
def read_all(settings: Settings) -> Iterator[dict[str, Connection]]:
    """Open the database of every service read-only."""
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(Database.open_read_only(settings.database(name)))
            for name in load_system(settings).names
        }
        yield {name: stack.enter_context(database.read()) for name, database in databases.items()}


def audit_all(settings: Settings, *, overdue_seconds: float) -> Report:
    """Audit the databases as they are now."""
    overdue_after = timedelta(seconds=overdue_seconds)
    with read_all(settings) as connections:
        return load_system(settings).audit(
            connections, datetime.now(UTC), overdue_after=overdue_after
        )


def audit_when_quiescent(
    settings: Settings, *, seconds_max: float, overdue_seconds: float
) -> tuple[float, Report]:
    """Audit the databases once every order has ended and no event waits for a receipt, or when the time is
    over; return how many seconds that took, and the report.

    A service may publish again after it was looked at, such as the head of its audit log: then look again.
    """
    began = time.monotonic()
    while True:
        while not _is_quiescent(settings) and time.monotonic() < began + seconds_max:
            time.sleep(LOOK_SECONDS)
        seconds = time.monotonic() - began
        report = audit_all(settings, overdue_seconds=overdue_seconds)
        if report.settled or seconds >= seconds_max:
            return seconds, report


def unanswered_changes(settings: Settings) -> set[str]:
    """Return the orders with a change that is neither confirmed nor refused."""
    with read_all(settings) as connections:
        found = connections["orders"].execute(
            select(orders.c.id, orders.c.changes).where(orders.c.changes.is_not(None))
        )
        return {
            row.id
            for row in found
            if any(each.state is ChangeState.REQUESTED for each in decode_changes(row.changes))
        }


def unanswered_holds(settings: Settings) -> set[str]:
    """Return the orders with a hold that is neither confirmed nor refused, or is open."""
    with read_all(settings) as connections:
        found = connections["orders"].execute(
            select(orders.c.id, orders.c.holds).where(orders.c.holds.is_not(None))
        )
        return {
            row.id
            for row in found
            if any(each.is_open or each.decided_at is None for each in decode_holds(row.holds))
        }


def violations(report: Report) -> tuple[str, ...]:
    """Return a line for everything that is not as it should be in a quiescent system."""
    return (
        *(f"{found.invariant} {found.subject}: {found.problem}" for found in report.findings),
        *(f"{count} receipts awaited, {way}" for way, count in report.backlog.items()),
        *(f"{count} dead letters at {name}" for name, count in report.parked.items()),
    )


def order_ids(settings: Settings) -> set[str]:
    """Return the id of every order."""
    with read_all(settings) as connections:
        return set(connections["orders"].scalars(select(orders.c.id)))


def event_keys(settings: Settings) -> set[tuple[str, str]]:
    """Return the order and the id of every event in the orders' histories."""
    with read_all(settings) as connections:
        found = connections["orders"].execute(
            select(order_events.c.order_id, order_events.c.event_id)
        )
        return {(row.order_id, row.event_id) for row in found}


def _is_quiescent(settings: Settings) -> bool:
    open_orders = ~orders.c.status.in_([status for status in OrderStatus if status.terminal])
    with read_all(settings) as connections:
        if connections["orders"].scalar(select(exists().where(open_orders))):
            return False
        return not any(
            connection.scalar(select(exists().select_from(_outbox)))
            for connection in connections.values()
        )

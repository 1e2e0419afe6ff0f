"""Whether the promise was kept under load."""

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from todoku.audit import Report, audit
from todoku.database import Database
from todoku.settings import Settings
from todoku.system import load_system

SETTLE_SECONDS_MAX = 20.0
LOOK_SECONDS = 0.5


def broken_promises(settings: Settings, *, overdue_seconds: float) -> tuple[str, ...]:
    """What the audit finds in the databases once they have settled, or after a while all the same."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    report = _audited(settings, overdue_seconds)
    while (report.findings or report.backlog) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        report = _audited(settings, overdue_seconds)
    return (
        *(f"{found.invariant} {found.subject}: {found.problem}" for found in report.findings),
        *(f"{count} receipts awaited, {way}" for way, count in report.backlog.items()),
        *(f"{count} dead letters at {name}" for name, count in report.parked.items()),
    )


def _audited(settings: Settings, overdue_seconds: float) -> Report:
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(Database.open_read_only(settings.database(name)))
            for name in load_system(settings).names
        }
        connections: dict[str, Connection] = {
            name: stack.enter_context(database.read()) for name, database in databases.items()
        }
        overdue_after = timedelta(seconds=overdue_seconds)
        return audit(connections, datetime.now(UTC), overdue_after=overdue_after)

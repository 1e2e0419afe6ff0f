"""Check the databases: readable, schema version, and which process uses them."""

from collections.abc import Container, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import MetaData, func, select

from todoku.cli.databases import file_of, user_of
from todoku.cli.formatting import age, counted
from todoku.database import (
    Database,
    DatabaseError,
    SchemaMismatch,
    current_revision,
    head_revision,
    require_current,
)
from todoku.descriptor import ServiceDescriptor
from todoku.diagnosis import CheckResult, ok, warning, wrong
from todoku.engine import EngineTables
from todoku.settings import Settings
from todoku.system import load_system

_tables = EngineTables(MetaData())
"""The tables that every service has."""

WAITING_MAX = timedelta(minutes=1)
"""For how long an event may wait for a subscriber before that is reported: usually it takes less than a
second."""


def databases(settings: Settings, running: Container[str]) -> Iterator[CheckResult]:
    """Check each service's database; `running` are the services that respond."""
    for service in load_system(settings):
        yield _database(service, settings, running=service.name in running)


def _database(service: ServiceDescriptor, settings: Settings, *, running: bool) -> CheckResult:
    check, where = f"{service.name} database", settings.database(service.name)
    try:
        file = file_of(where)
        if file is not None and not file.exists():
            return _absent(check, file, running=running)
        with Database.open_read_only(where) as database:
            return _readable(check, service, database, user_of(where))
    except DatabaseError as error:
        return wrong(check, "cannot be read", fix=str(error))


def _absent(check: str, file: Path, *, running: bool) -> CheckResult:
    if not running:
        return ok(check, f"{file} does not exist yet; the first start creates it")
    return warning(
        check,
        f"{file} does not exist, although the service runs",
        fix="give the service's folder with --data-dir; if the file was deleted, stop Todoku and"
        " restore a backup",
    )


def _readable(
    check: str, service: ServiceDescriptor, database: Database, user: str | None
) -> CheckResult:
    current, head = current_revision(database), head_revision(service.package)
    found = f"{database.name}, version {current or 'none'}" + (f", used by {user}" if user else "")
    try:
        require_current(database, service.package)
    except SchemaMismatch as error:
        if current is not None and current > head:
            return wrong(check, found, fix=str(error))
        return warning(
            check, found, fix=f"run `todoku migrate {service.name}`, or start the service"
        )
    if (count := _holding(database)) > 0:
        return wrong(
            check,
            f"{found}; it lacks what neither the backup nor the stream has, so the service decides nothing:"
            f" {counted(count, 'dead letter')} to resolve",
            fix=f"see `todoku dead list --service {service.name}`, enter again what is missing, then"
            f" `todoku dead retry --all --service {service.name}`",
        )
    if unlogged := sorted(database.unlogged_tables()):
        return wrong(
            check,
            f"{found}; a crash of PostgreSQL empties the tables {', '.join(unlogged)}: they are UNLOGGED",
            fix=f"run {'; '.join(f'ALTER TABLE {name} SET LOGGED' for name in unlogged)}",
        )
    concerns = [
        *_parked(service, database),
        *_waiting(database, datetime.now(UTC)),
        *_durability(database),
    ]
    if not concerns:
        return ok(check, found)
    return warning(
        check,
        "; ".join([found, *(concern.found for concern in concerns)]),
        fix="; ".join(concern.fix for concern in concerns),
    )


class _Concern(msgspec.Struct, frozen=True):
    """Something about a database that needs attention, and what to do."""

    found: str
    fix: str


def _holding(database: Database) -> int:
    with database.read() as connection:
        return len(_tables.dead_letters.holding(connection))


def _parked(service: ServiceDescriptor, database: Database) -> Iterator[_Concern]:
    with database.read() as connection:
        groups = _tables.dead_letters.groups(connection)
    if groups:
        most = groups[0]
        others = f" and {counted(len(groups) - 1, 'other error')}" if len(groups) > 1 else ""
        which = f"--group {most.id}" if most.id else f"--all --service {service.name}"
        yield _Concern(
            f"{counted(sum(group.letters for group in groups), 'message')} parked: {most.shape}{others}",
            f"see `todoku dead list --service {service.name}`; once the cause is gone,"
            f" `todoku dead retry {which}`",
        )


def _waiting(database: Database, now: datetime) -> Iterator[_Concern]:
    """Find events that are published or confirmed much later than usual, whatever the reason."""
    outbox = _tables.outbox.table.c
    oldest = func.min(outbox.said_at)
    by_reader = select(outbox.reader, func.count(), oldest).group_by(outbox.reader)
    with database.read() as connection:
        found = connection.execute(by_reader.order_by(outbox.reader)).all()
    for reader, count, since in found:
        if since < now - WAITING_MAX:
            yield _Concern(
                f"{counted(count, 'event')} not yet confirmed by {reader}, the oldest for {age(since, now)}",
                "check that the broker and all services run, and the log of this one"
                " (`publishing_delayed`)",
            )


def _durability(database: Database) -> Iterator[_Concern]:
    if (durability := database.configured_durability()) is not None:
        yield _Concern(
            f"synchronous_commit is set to {durability}",
            "the services commit with `on` all the same; set it for this role and database, so that other"
            " programs do so too",
        )
    if not database.writes_whole_pages():
        yield _Concern(
            "full_page_writes is off",
            "set full_page_writes = on, unless the file system never writes half a page",
        )

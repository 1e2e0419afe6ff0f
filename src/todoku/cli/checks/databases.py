"""Check the databases: readable, schema version, and which process uses them."""

from collections.abc import Container, Iterator
from pathlib import Path

from sqlalchemy import MetaData, text

from todoku.cli.databases import file_of, user_of
from todoku.cli.formatting import counted
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
from todoku.engine import DeadLetters
from todoku.settings import Settings
from todoku.system import load_system

_letters = DeadLetters(MetaData())
"""The table that every service has."""


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
    if (count := _parked(database)) > 0:
        return warning(
            check,
            f"{found}; {counted(count, 'message')} parked, each with its order",
            fix=f"see `todoku dead list {service.name}`",
        )
    if (durability := database.configured_durability()) is not None:
        return warning(
            check,
            f"{found}; synchronous_commit is set to {durability}",
            fix="the services commit with `on` all the same; set it for this role and database, so"
            " that other programs do so too",
        )
    return ok(check, found)


def _holding(database: Database) -> int:
    with database.read() as connection:
        return len(_letters.holding(connection))


def _parked(database: Database) -> int:
    with database.read() as connection:
        parked = text("SELECT count(*) FROM dead_letters WHERE state = 'PARKED'")
        return connection.scalar(parked) or 0

"""The databases: whether they can be read, their version, and who has them."""

from collections.abc import Container, Iterator
from pathlib import Path

from todoku.cli.checks import Finding, ok, warning, wrong
from todoku.cli.databases import file_of, user_of
from todoku.database import (
    Database,
    DatabaseError,
    SchemaMismatch,
    current_revision,
    head_revision,
    require_current,
)
from todoku.settings import SERVICES, ServiceName, Settings


def databases(settings: Settings, present: Container[ServiceName]) -> Iterator[Finding]:
    """Each service's database; `present` are the services that run."""
    for service in SERVICES:
        yield _database(service, settings, running=service in present)


def _database(service: ServiceName, settings: Settings, *, running: bool) -> Finding:
    check, where = f"{service} database", settings.database(service)
    try:
        file = file_of(where)
        if file is not None and not file.exists():
            return _absent(check, file, running=running)
        with Database.open_read_only(where) as database:
            return _readable(check, service, database, user_of(where))
    except DatabaseError as error:
        return wrong(check, "cannot be read", fix=str(error))


def _absent(check: str, file: Path, *, running: bool) -> Finding:
    if not running:
        return ok(check, f"{file} is not there yet; it is made at the first start")
    return warning(
        check,
        f"{file} is not there, though the service runs",
        fix="name the folder that it has with --data-dir; if the file was deleted, stop Todoku and"
        " restore a backup",
    )


def _readable(check: str, service: ServiceName, database: Database, user: str | None) -> Finding:
    package = f"todoku.{service}"
    current, head = current_revision(database), head_revision(package)
    found = f"{database.name}, version {current or 'none'}" + (f", used by {user}" if user else "")
    try:
        require_current(database, package)
    except SchemaMismatch as error:
        if current is not None and current > head:
            return wrong(check, found, fix=str(error))
        return warning(check, found, fix=f"`todoku migrate {service}`; the next start does it too")
    return ok(check, found)

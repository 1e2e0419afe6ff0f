"""`todoku migrate`: migrate the databases to the schema of this version."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, ServiceName, settings_from
from todoku.cli.options import Flag, JsonLines
from todoku.cli.output import suggest, write_line
from todoku.cli.streams import to_json
from todoku.local.claims import make_data_folder
from todoku.settings import Settings
from todoku.system import load_system

if TYPE_CHECKING:
    from todoku.database import Database


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """A database and its schema versions: the one found, and the one that this program needs.

    `was` is None if there are no tables yet.
    """

    service: str
    database: str
    was: str | None
    needed: str
    migrated: bool

    @property
    def pending(self) -> bool:
        """Whether the database is not yet at the version that this program needs."""
        return self.was != self.needed and not self.migrated

    def __str__(self) -> str:
        was = f"version {self.was}" if self.was else "no tables"
        if self.was == self.needed:
            outcome = f"{was}: up to date"
        elif self.migrated:
            outcome = f"{was} → version {self.needed}"
        else:
            outcome = f"{was}: version {self.needed} is needed"
        return f"{self.service:<10} {outcome}"


def migrate(
    *services: ServiceName,
    check: Flag = False,
    json: JsonLines = False,
    flags: Flags = None,
) -> ExitCode:
    """Migrate the databases to the schema of this version.

    Services do this when they start; with this command you do it before, or check
    it. Each database is migrated in one transaction. A database of a newer
    version is refused.

    For example:

        todoku migrate --check
        todoku migrate orders --orders-database-url postgresql://db.example/orders

    Parameters
    ----------
    services
        The services whose databases to migrate; default: all.
    check
        Change nothing; exit with 1 if a migration is pending.
    """
    settings = settings_from(flags).settings
    pending = False
    for service in services or load_system(settings).names:
        step = _inspect(service, settings) if check else _migrate(service, settings)
        if json:
            write_line(to_json(step))
        else:
            print(step, flush=True)
        pending |= step.pending
    if not json:
        _suggest(pending=pending)
    return ExitCode.FAILED if pending else ExitCode.OK


def _suggest(*, pending: bool) -> None:
    if pending:
        suggest("todoku migrate", "migrate them")
    else:
        suggest("todoku up", "start the services")


def _inspect(service: str, settings: Settings) -> Step:
    """Return the pending migration. Raises `CommandFailed`."""
    from todoku.cli.databases import file_of
    from todoku.database import Database, head_revision, require_current

    package = load_system(settings)[service].package
    with _explained(service, settings):
        file = file_of(settings.database(service))
        if file is not None and not file.exists():
            return Step(service, str(file), None, head_revision(package), migrated=False)
        with Database.open_read_only(settings.database(service)) as database:
            step = _step(service, database, package)
            if step.was is not None and step.was > step.needed:
                require_current(
                    database, package
                )  # raises: the database is newer than this program
            return step


def _migrate(service: str, settings: Settings) -> Step:
    """Migrate a database if necessary. Raises `CommandFailed`."""
    from todoku.database import Database
    from todoku.database import migrate as migrate_database

    step = _inspect(service, settings)
    if not step.pending:
        return step  # works also while a service has the database open
    if isinstance(settings.database(service), Path):
        make_data_folder(settings.data_dir, [service])
    with _explained(service, settings), Database.open(settings.database(service)) as database:
        migrate_database(database, load_system(settings)[service].package)
    return msgspec.structs.replace(step, migrated=True)


def _step(service: str, database: "Database", package: str) -> Step:
    from todoku.database import current_revision, head_revision

    return Step(
        service,
        database.name,
        current_revision(database),
        head_revision(package),
        migrated=False,
    )


@contextmanager
def _explained(service: str, settings: Settings) -> Iterator[None]:
    """Turn database errors into `CommandFailed` with advice."""
    from todoku.cli.databases import user_of
    from todoku.database import DatabaseError, DatabaseInUse

    try:
        yield
    except DatabaseInUse as error:
        user = user_of(settings.database(service)) or "another process"
        raise CommandFailed(
            f"the {service} database is in use by {user}.\nStop that process first. A service"
            f" migrates its database when it starts. ({error})",
            exit_code=ExitCode.IN_USE,
        ) from error
    except DatabaseError as error:
        raise CommandFailed(f"{service}: {error}", exit_code=ExitCode.CANNOT_START) from error

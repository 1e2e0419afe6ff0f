"""`todoku migrate`: brings the databases to this version."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.options import JsonLines
from todoku.cli.output import suggest
from todoku.settings import SERVICES, ServiceName, Settings

if TYPE_CHECKING:
    from todoku.database import Database


class Step(msgspec.Struct, frozen=True, rename="camel"):
    """A database and the versions of its tables: what there was, and what this program needs.

    `was` is None where there were no tables yet.
    """

    service: str
    database: str
    was: str | None
    needed: str
    migrated: bool

    @property
    def pending(self) -> bool:
        """Whether the tables are still to be brought to the version that is needed."""
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
    check: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: JsonLines = False,
    flags: Flags = None,
) -> ExitCode:
    """Bring the databases to this version.

    Services do this themselves when they start; here it can be done before, and
    looked at. Each database is changed in one transaction or not at all. One that
    a newer version has changed is refused.

    For example:

        todoku migrate --check
        todoku migrate orders --orders-database-url postgresql://db.example/orders

    Parameters
    ----------
    services
        Whose databases; without any, all.
    check
        Only tell what is to be done; exit code 1 if there is something.
    """
    settings = settings_from(flags).settings
    pending = False
    for service in services or SERVICES:
        step = _look(service, settings) if check else _bring_up(service, settings)
        print(msgspec.json.encode(step).decode() if json else step, flush=True)
        pending |= step.pending
    if not json:
        _suggest(pending=pending)
    return ExitCode.FAILED if pending else ExitCode.OK


def _suggest(*, pending: bool) -> None:
    if pending:
        suggest("todoku migrate", "do it")
    else:
        suggest("todoku up", "start everything")


def _look(service: ServiceName, settings: Settings) -> Step:
    """What is to be done. Raises `CommandFailed`."""
    from todoku.cli.databases import file_of
    from todoku.database import Database, head_revision, require_current

    package = f"todoku.{service}"
    with _explained(service, settings):
        file = file_of(settings.database(service))
        if file is not None and not file.exists():
            return Step(service, str(file), None, head_revision(package), migrated=False)
        with Database.open_read_only(settings.database(service)) as database:
            step = _step(service, database)
            if step.was is not None and step.was > step.needed:
                require_current(database, package)  # says why not, and what to do
            return step


def _bring_up(service: ServiceName, settings: Settings) -> Step:
    """Do it, if there is something to do. Raises `CommandFailed`."""
    from todoku.database import Database
    from todoku.database import migrate as migrate_database

    step = _look(service, settings)
    if not step.pending:
        return step  # also while a service has the database open
    with _explained(service, settings), Database.open(settings.database(service)) as database:
        migrate_database(database, f"todoku.{service}")
    return msgspec.structs.replace(step, migrated=True)


def _step(service: ServiceName, database: "Database") -> Step:
    from todoku.database import current_revision, head_revision

    return Step(
        service,
        database.name,
        current_revision(database),
        head_revision(f"todoku.{service}"),
        migrated=False,
    )


@contextmanager
def _explained(service: ServiceName, settings: Settings) -> Iterator[None]:
    """Turns what a database says into what to do about it."""
    from todoku.cli.databases import user_of
    from todoku.database import DatabaseError, DatabaseInUse

    try:
        yield
    except DatabaseInUse as error:
        user = user_of(settings.database(service)) or "another process"
        raise CommandFailed(
            f"the {service} database is in use by {user}.\nStop that one first, or leave this to"
            f" it: a service brings its database up when it starts. ({error})",
            exit_code=ExitCode.IN_USE,
        ) from error
    except DatabaseError as error:
        raise CommandFailed(f"{service}: {error}", exit_code=ExitCode.CANNOT_START) from error

"""Report what is paused: nothing of it starts before somebody resumes it."""

from collections.abc import Iterator

from sqlalchemy import MetaData, inspect

from todoku.cli.databases import file_of
from todoku.database import Database, DatabaseError
from todoku.descriptor import ServiceDescriptor
from todoku.diagnosis import CheckResult, ok, warning
from todoku.engine import PauseRecord, Pauses, PauseState
from todoku.settings import Settings
from todoku.system import load_system

CHECK = "pauses"
PAUSES_MAX = 20

_pauses = Pauses(MetaData())
"""The table that every service has."""


def pauses(settings: Settings) -> Iterator[CheckResult]:
    """Check each service's database, whether the service runs or not."""
    results = [
        _result(service, pause)
        for service in load_system(settings)
        for pause in _paused(service, settings)
    ]
    yield from results or [ok(CHECK, "nothing is paused")]


def _paused(service: ServiceDescriptor, settings: Settings) -> list[PauseRecord]:
    where = settings.database(service.name)
    file = file_of(where)
    if file is not None and not file.exists():
        return []
    try:
        with Database.open_read_only(where) as database, database.read() as connection:
            if not inspect(connection).has_table(_pauses.table.name):
                return []  # An older version: the check of the database says so.
            return _pauses.page(connection, state=PauseState.PAUSED, limit=PAUSES_MAX)
    except DatabaseError:
        return []  # The check of the database says why.


def _result(service: ServiceDescriptor, pause: PauseRecord) -> CheckResult:
    what = service.name if pause.target == "service" else pause.target
    return warning(
        CHECK,
        f"{what} is paused since {pause.paused_at:%F %T} UTC by {pause.paused_by}: {pause.reason}",
        fix=f"`todoku resume {what}` lets it go on",
    )

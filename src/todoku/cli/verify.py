"""`todoku verify`: hold the databases against the promise."""

import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.settings import SERVICES, Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from todoku.audit import Report

LOOK_AGAIN_SECONDS = 0.5


def verify(
    *,
    grace_seconds: float = 10.0,
    overdue_seconds: float = 300.0,
    json: Annotated[bool, Parameter(negative="")] = False,
    flags: Flags = None,
) -> ExitCode:
    """Hold the databases against the promise, and print what breaks it.

    Works on a running system and on a stopped one, and changes nothing. While services move one
    after the other, their databases differ for a moment: a finding counts if it is still there
    after the grace period. Exit code 1 if something breaks the promise.

    For example:

        todoku verify
        todoku verify --overdue-seconds 3600 --json | jq .findings

    Parameters
    ----------
    grace_seconds
        How long a finding must last to count.
    overdue_seconds
        How old an order may be before it should have ended.
    json
        Print one JSON object.
    """
    settings = settings_from(flags).settings
    report = _lasting(settings, grace_seconds, timedelta(seconds=overdue_seconds))
    print(_as_json(report) if json else _as_text(report))
    return ExitCode.OK if report.clean else ExitCode.FAILED


def _lasting(settings: Settings, grace_seconds: float, overdue_after: timedelta) -> "Report":
    """The report, with only those findings that were there all the time."""
    report = _audit(settings, overdue_after)
    lasting = set(report.findings)
    patience_ends = time.monotonic() + grace_seconds
    while lasting and time.monotonic() < patience_ends:
        time.sleep(LOOK_AGAIN_SECONDS)
        report = _audit(settings, overdue_after)
        lasting &= set(report.findings)
    return msgspec.structs.replace(report, findings=tuple(sorted(lasting)))


def _audit(settings: Settings, overdue_after: timedelta) -> "Report":
    from todoku.audit import audit
    from todoku.database import Database, DatabaseError, require_current

    try:
        with ExitStack() as stack:
            databases = {
                name: stack.enter_context(Database.open_read_only(settings.database(name)))
                for name in SERVICES
            }
            for name, database in databases.items():
                require_current(database, f"todoku.{name}")
            connections: dict[str, Connection] = {
                name: stack.enter_context(database.read()) for name, database in databases.items()
            }
            return audit(connections, datetime.now(UTC), overdue_after=overdue_after)
    except DatabaseError as error:
        raise CommandFailed(
            f"The databases cannot be read. {error} Point --data-dir at the folder that "
            "`todoku up` uses.",
            exit_code=ExitCode.CANNOT_START,
        ) from error


def _as_json(report: "Report") -> str:
    told = msgspec.to_builtins(report) | {"settled": report.settled, "clean": report.clean}
    return msgspec.json.format(msgspec.json.encode(told)).decode()


def _as_text(report: "Report") -> str:
    lines = [f"{count:>9} orders {status}" for status, count in report.orders.items()]
    lines += [f"{count:>9} receipts awaited, {way}" for way, count in report.backlog.items()]
    lines += [f"{count:>9} dead letters at {name}" for name, count in report.parked.items()]
    for finding in report.findings:
        lines += [
            f"{finding.invariant}  {finding.subject}: {finding.problem}",
            f"    {finding.advice}",
        ]
    lines.append(
        f"{len(report.findings)} broken promises" if report.findings else "clean: nothing is broken"
    )
    return "\n".join(lines)

"""`todoku verify`: check the databases for broken invariants."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from todoku.cli.client import client
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_of_running
from todoku.cli.formatting import age, counted, day_and_time, printable
from todoku.cli.options import Flag, Json, Seconds
from todoku.cli.output import note, write_object
from todoku.cli.responses import Resent
from todoku.lifecycle import OVERDUE_SECONDS
from todoku.settings import Settings
from todoku.system import load_system

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from todoku.audit import Report

POLL_SECONDS = 0.5

ORDERS_MAX = 200
"""The maximum number of orders in one request to a service."""


def verify(
    *,
    grace_seconds: Seconds = 10.0,
    overdue_seconds: Seconds = OVERDUE_SECONDS,
    repair: Flag = False,
    strict: Flag = False,
    never_restored: Flag = False,
    json: Json = False,
    flags: Flags = None,
) -> ExitCode:
    """Check the databases for broken invariants.

    Works on a running system and on a stopped one, and changes nothing. On a
    running system the databases differ for a moment: a finding counts only if it
    lasts for the grace period. If `todoku up` runs on the data folder, its settings
    are used. Exits with 1 if an invariant is broken; with --strict also if there
    are dead letters: their orders have not ended, and wait for a person. Exits with
    1 with --never-restored if an audit log says that a database was restored.

    For example:

        todoku verify
        todoku verify --repair
        todoku verify --strict
        todoku verify --overdue-seconds 3600 --json | jq .findings

    Parameters
    ----------
    grace_seconds
        How long a finding must last to count.
    overdue_seconds
        The age at which an order that has not ended is a finding; at its deadline it is one, too.
    repair
        Ask the running services to resend events that a consumer seems to have missed, then check
        again. Changes no data.
    strict
        Fail on unresolved dead letters, too.
    never_restored
        Fail on a database that was restored at some time, too: nobody has restored one of this system, so a
        service has taken its database for one that lacks something.
    json
        Print one JSON object.
    """
    settings = settings_of_running(flags)[0].settings
    overdue_after = timedelta(seconds=overdue_seconds)
    report = _lasting(settings, grace_seconds, overdue_after)
    if repair and _repair(settings, report, timedelta(seconds=grace_seconds)):
        report = _lasting(settings, grace_seconds, overdue_after)
    if json:
        write_object(_as_json(report))
    else:
        print("\n".join(_as_text(report)))
    failed = _fails(report, strict=strict, never_restored=never_restored)
    return ExitCode.FAILED if failed else ExitCode.OK


def _fails(report: "Report", *, strict: bool, never_restored: bool) -> bool:
    if not report.clean or (strict and report.dead_letters):
        return True
    return never_restored and any(log.restored_at for log in report.audit_logs)


def _lasting(settings: Settings, grace_seconds: float, overdue_after: timedelta) -> "Report":
    """Return a report with the findings that lasted for the grace period. Two findings are the same if
    their `about` is: on a running system the numbers in them change."""
    report = _audit(settings, overdue_after)
    lasting = {finding.about for finding in report.findings}
    deadline = time.monotonic() + grace_seconds
    while lasting and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        report = _audit(settings, overdue_after)
        lasting &= {finding.about for finding in report.findings}
    findings = tuple(finding for finding in report.findings if finding.about in lasting)
    return msgspec.structs.replace(report, findings=findings)


def _repair(settings: Settings, report: "Report", grace: timedelta) -> bool:
    """Ask the services to resend missed events; return whether there were any. Raises
    `CommandFailed` if a service does not respond."""
    requests = list(_resends(settings, report, datetime.now(UTC) - grace))
    for service, order_ids in requests:
        _resend(settings, service, order_ids)
    if not requests:
        note("nothing to repair by resending events")
    return bool(requests)


def _resends(
    settings: Settings, report: "Report", overdue: datetime
) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    """Yield each service that must resend, with the orders; None for all its pending deliveries."""
    for service in load_system(settings).names:
        about = sorted({each.subject for each in report.findings if each.asks == service})
        for first in range(0, len(about), ORDERS_MAX):
            yield service, tuple(about[first : first + ORDERS_MAX])
        if any(way.service == service and way.since < overdue for way in report.awaited):
            yield service, None


def _resend(settings: Settings, service: str, order_ids: tuple[str, ...] | None) -> None:
    service_client = client(service, None, settings)
    body = msgspec.json.encode({} if order_ids is None else {"orderIds": order_ids})
    try:
        answer = service_client.send(
            "POST", "/events/send-again", body, find_out="It is safe to repeat it."
        )
    except CommandFailed as failure:
        if failure.exit_code is not ExitCode.UNREACHABLE:
            raise
        reason = str(failure).removeprefix("todoku: ")
        raise CommandFailed(
            f"--repair needs running services: start `todoku up`. {reason}",
            exit_code=ExitCode.UNREACHABLE,
        ) from failure
    sent = service_client.read(answer, Resent)
    if order_ids is None:
        deliveries = counted(sent.owed, "pending delivery", "pending deliveries")
        note(f"{service} resends {deliveries}")
        return
    resent = Counter(name for order in sent.orders for name in order.event_types)
    what = ", ".join(f"{printable(name)} ×{count:,}" for name, count in sorted(resent.items()))
    note(f"{service} republishes for {counted(len(order_ids), 'order')}: {what or 'nothing'}")


def _audit(settings: Settings, overdue_after: timedelta) -> "Report":
    from todoku.database import Database, DatabaseAbsent, DatabaseError, require_current

    try:
        system = load_system(settings)
        with ExitStack() as stack:
            databases = {
                name: stack.enter_context(Database.open_read_only(settings.database(name)))
                for name in system.names
            }
            for name, database in databases.items():
                require_current(database, system[name].package)
            connections: dict[str, Connection] = {
                name: stack.enter_context(database.read()) for name, database in databases.items()
            }
            return system.audit(connections, datetime.now(UTC), overdue_after=overdue_after)
    except DatabaseError as error:
        absent = isinstance(error, DatabaseAbsent)
        advice = " Set --data-dir to the folder that `todoku up` uses." if absent else ""
        raise CommandFailed(
            f"cannot read the databases. {error}{advice}",
            exit_code=ExitCode.CANNOT_START,
        ) from error


def _audit_logs(report: "Report", now: datetime) -> Iterator[str]:
    for log in report.audit_logs:
        line = f"{counted(log.rows, 'row')} in the audit log of {log.service}"
        if log.oldest_not_anchored is not None:
            since = age(log.oldest_not_anchored, now)
            line += f", {log.not_anchored:,} of them not anchored yet (oldest: {since})"
        yield line
        for restored_at in log.restored_at:
            yield f"    It was restored at {day_and_time(restored_at)}: what the backup lacked is gone."


def _as_json(report: "Report") -> bytes:
    report_fields = msgspec.to_builtins(report) | {"settled": report.settled, "clean": report.clean}
    return msgspec.json.encode(report_fields)


def _as_text(report: "Report") -> Iterator[str]:
    from todoku.audit import orders_named

    for status, count in report.orders.items():
        yield f"{count:>9,} {'order' if count == 1 else 'orders'} {status}"
    now = datetime.now(UTC)
    for way in report.awaited:
        receipts = counted(way.events, "receipt")
        yield (
            f"{way.service} waits for {receipts} from {way.reader} (oldest: {age(way.since, now)})"
        )
    if report.awaited:
        yield "    They are resent automatically; check with `todoku doctor` that all services run."
    for parked in report.dead_letters:
        yield (
            f"{counted(parked.letters, 'dead letter')} at {parked.service}, "
            f"about {printable(orders_named(parked.orders))}"
        )
        yield f"    Handle them: `todoku dead list --service {parked.service}`."
    for pause in report.paused:
        yield (
            f"{pause.service} is {pause.state} ({printable(pause.target)}) since"
            f" {day_and_time(pause.since)} by {printable(pause.by)}: {printable(pause.reason)}"
        )
        yield "    Orders that wait there are not overdue meanwhile: see `todoku pauses`."
    yield from _audit_logs(report, now)
    for finding in report.findings:
        yield f"{finding.invariant}  {printable(finding.subject)}: {printable(finding.problem)}"
        yield f"    {printable(finding.advice)}"
    broken = len(report.findings)
    yield counted(broken, "broken invariant") if broken else "clean: no broken invariants"

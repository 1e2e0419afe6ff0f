"""`todoku verify`: hold the databases against the promise."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.answers import SentAgain
from todoku.cli.client import client
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.options import Json, Seconds
from todoku.cli.output import say
from todoku.cli.words import age, printable
from todoku.settings import SERVICES, ServiceName, Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from todoku.audit import Report

LOOK_AGAIN_SECONDS = 0.5

ORDERS_MAX = 200
"""About how many orders a service is asked at once."""


def verify(
    *,
    grace_seconds: Seconds = 10.0,
    overdue_seconds: Seconds = 300.0,
    repair: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json: Json = False,
    flags: Flags = None,
) -> ExitCode:
    """Hold the databases against the promise, and print what breaks it.

    Works on a running system and on a stopped one, and changes nothing. While services move one
    after the other, their databases differ for a moment: a finding counts if it is still there
    after the grace period. Exit code 1 if something breaks the promise.

    For example:

        todoku verify
        todoku verify --repair
        todoku verify --overdue-seconds 3600 --json | jq .findings

    Parameters
    ----------
    grace_seconds
        How long a finding must last to count.
    overdue_seconds
        How old an order may be before it should have ended.
    repair
        Ask the running services to send again what somebody seems not to have heard, then look
        once more. Nothing is edited.
    json
        Print one JSON object.
    """
    settings = settings_from(flags).settings
    overdue_after = timedelta(seconds=overdue_seconds)
    report = _lasting(settings, grace_seconds, overdue_after)
    if repair and _repair(settings, report, timedelta(seconds=grace_seconds)):
        report = _lasting(settings, grace_seconds, overdue_after)
    print(_as_json(report) if json else "\n".join(_as_text(report)))
    return ExitCode.OK if report.clean else ExitCode.FAILED


def _lasting(settings: Settings, grace_seconds: float, overdue_after: timedelta) -> "Report":
    """The report, with only those findings whose like was there all the time: on a running system
    the numbers in them change."""
    report = _audit(settings, overdue_after)
    lasting = {finding.about for finding in report.findings}
    patience_ends = time.monotonic() + grace_seconds
    while lasting and time.monotonic() < patience_ends:
        time.sleep(LOOK_AGAIN_SECONDS)
        report = _audit(settings, overdue_after)
        lasting &= {finding.about for finding in report.findings}
    findings = tuple(finding for finding in report.findings if finding.about in lasting)
    return msgspec.structs.replace(report, findings=findings)


def _repair(settings: Settings, report: "Report", grace: timedelta) -> bool:
    """Have said again what somebody seems not to have heard; whether anything was. Raises
    `CommandFailed` where a service does not answer."""
    asked = list(_wanted(report, datetime.now(UTC) - grace))
    for service, order_ids in asked:
        _ask(settings, service, order_ids)
    if not asked:
        say("nothing to repair by sending it again")
    return bool(asked)


def _wanted(
    report: "Report", overdue: datetime
) -> Iterator[tuple[ServiceName, tuple[str, ...] | None]]:
    """Which service is to say again what about these orders, or, without orders, all that it owes."""
    for service in SERVICES:
        about = sorted({each.subject for each in report.findings if each.asks == service})
        for first in range(0, len(about), ORDERS_MAX):
            yield service, tuple(about[first : first + ORDERS_MAX])
        if any(way.service == service and way.since < overdue for way in report.awaited):
            yield service, None


def _ask(settings: Settings, service: ServiceName, order_ids: tuple[str, ...] | None) -> None:
    keeper = client(service, None, settings)
    body = msgspec.json.encode({} if order_ids is None else {"orderIds": order_ids})
    try:
        answer = keeper.send(
            "POST", "/events/send-again", body, find_out="It may be asked for again."
        )
    except CommandFailed as failure:
        if failure.exit_code is not ExitCode.UNREACHABLE:
            raise
        reason = str(failure).removeprefix("todoku: ")
        raise CommandFailed(
            f"--repair asks the services themselves, so they must run: start `todoku up`. {reason}",
            exit_code=ExitCode.UNREACHABLE,
        ) from failure
    sent = keeper.read(answer, SentAgain)
    if order_ids is None:
        say(f"{service} sends again all that it owes: receipts awaited: {sent.owed:,}")
        return
    said = Counter(name for order in sent.orders for name in order.event_types)
    what = ", ".join(f"{printable(name)} ×{count:,}" for name, count in sorted(said.items()))
    say(f"{service} says again about {len(order_ids):,} of the orders: {what or 'nothing'}")


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


def _as_text(report: "Report") -> Iterator[str]:
    from todoku.audit import orders_named

    for status, count in report.orders.items():
        yield f"{count:>9,} orders {status}"
    now = datetime.now(UTC)
    for way in report.awaited:
        yield (
            f"{way.events:>9,} receipts of {way.reader} awaited by {way.service}, "
            f"the longest for {age(way.since, now)}"
        )
    if report.awaited:
        yield f"{'':9} They are sent again by themselves: see with `todoku doctor` that all runs."
    for parked in report.dead_letters:
        yield (
            f"{parked.letters:>9,} dead letters at {parked.service}, "
            f"about {printable(orders_named(parked.orders))}"
        )
        yield f"{'':9} See to them: `todoku dead list --service {parked.service}`."
    for finding in report.findings:
        yield f"{finding.invariant}  {printable(finding.subject)}: {printable(finding.problem)}"
        yield f"    {printable(finding.advice)}"
    broken = len(report.findings)
    yield f"{broken:,} broken promises" if broken else "clean: nothing is broken"

"""`todoku audit`: list who has asked for what, and what came of it."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.client import ServiceClient
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, Addresses
from todoku.cli.formatting import counted, day_and_time
from todoku.cli.options import ItemsMax, JsonLines
from todoku.cli.output import KEY, TEXT, cells, console, note, table, write_line
from todoku.cli.pausing import SYSTEM, at_each, outcome_of, places_of
from todoku.cli.responses import AuditedRequest

Only = Annotated[str | None, Parameter(show_default=False)]


def audit(
    *,
    service: Only = None,
    actor: Only = None,
    subject: Only = None,
    operation: Only = None,
    outcome: Only = None,
    limit: ItemsMax = 20,
    json: JsonLines = False,
    addresses: Addresses = None,
) -> ExitCode:
    """List who has asked for what, and what came of it: the latest first.

    Every request that changes something is in the audit log of the service that
    took it, and every one that a known caller was refused; of unknown callers only
    the number of refused requests, by address and minute. `todoku verify` checks
    that nothing in it was changed or removed. The setting `audit` says whether it
    is written.

    For example:

        todoku audit
        todoku audit --subject 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e
        todoku audit --service shipping --actor alice --json | jq -r .operation

    Parameters
    ----------
    service
        Only the audit log of this service.
    actor
        Only what this caller has asked for.
    subject
        Only what is about this: the id of an order, a product, a dead letter.
    operation
        Only this operation, by its id in /openapi.json, such as placeOrder.
    outcome
        Only with this outcome: done, repeated, or the type of a problem.
    """
    query = {"actor": actor, "subject": subject, "operation": operation, "outcome": outcome}
    found, failures = at_each(
        places_of(_place(service), addresses),
        lambda client, _: _rows(client, query, limit),
    )
    latest = sorted((row for rows in found for row in rows), key=itemgetter(0), reverse=True)
    rows = [row for _, row in latest[:limit]]
    if json:
        for row in rows:
            write_line(msgspec.json.encode(row))
    elif rows:
        _print([msgspec.convert(row, AuditedRequest) for row in rows])
    elif not failures:
        note("no such rows in the audit log: the setting `audit` says whether it is written")
    return outcome_of(failures)


def _place(service: str | None) -> str:
    """Return the service, or all of them. Raises `CommandFailed` for an unknown one."""
    if service is not None and service not in SYSTEM_HERE.names:
        raise CommandFailed(
            f"there is no service {service!r}: name one of {', '.join(SYSTEM_HERE.names)}.",
            exit_code=ExitCode.USAGE,
        )
    return service or SYSTEM


def _rows(
    client: ServiceClient, query: dict[str, str | None], limit: int
) -> list[tuple[str, dict[str, object]]]:
    """Return the rows of a service, each with what sorts it by time."""
    rows = [msgspec.json.decode(raw) for raw in client.list("/audit", query, items_max=limit)]
    return [
        (f"{row['at']} {row['sequence']:020}", {"service": client.service} | row) for row in rows
    ]


def _print(rows: Sequence[AuditedRequest]) -> None:
    lines = table(
        KEY("time"), KEY("service"), TEXT("who"), KEY("operation"), TEXT("subject"), TEXT("outcome")
    )
    for row in rows:
        who = row.actor or row.source or ""
        key = f" ({row.key_id})" if row.key_id else ""
        times = f", {counted(row.times, 'time')}" if row.times > 1 else ""
        subject = row.subject or row.about or ""
        lines.add_row(
            *cells(
                day_and_time(row.at),
                row.service,
                f"{who}{key}",
                row.operation,
                subject,
                f"{row.outcome}{times}",
            )
        )
    console().print(lines)

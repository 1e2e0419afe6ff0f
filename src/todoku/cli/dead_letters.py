"""Find dead letters at the services, and print them."""

import base64
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import msgspec

from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, AddressFlags, ServiceName, settings_to_reach
from todoku.cli.formatting import age, day_and_time, printable
from todoku.cli.output import KEY, NUMBER, TEXT, cells, console, grid, suggest, table
from todoku.cli.responses import DeadLetter, DeadLetterDetails


class ListedLetter(msgspec.Struct, frozen=True):
    """A dead letter and the service that stores it."""

    service: ServiceClient
    letter: DeadLetter
    raw: bytes


def clients(service: ServiceName | None, addresses: AddressFlags | None) -> list[ServiceClient]:
    """Return a client of this service, or of all."""
    settings = settings_to_reach(addresses).settings
    return [client(name, None, settings) for name in ([service] if service else SYSTEM_HERE.names)]


def listed(
    service_client: ServiceClient, wanted: dict[str, str | None], limit: int
) -> Iterator[ListedLetter]:
    """Yield the dead letters of a service that match."""
    for raw in service_client.list("/dead-letters", wanted, items_max=limit):
        yield ListedLetter(service_client, service_client.read(raw, DeadLetter), raw)


def find(
    letter_id: str, service: ServiceName | None, addresses: AddressFlags | None
) -> tuple[ServiceClient, bytes]:
    """Return the service that stores the letter, and the letter. Raises `CommandFailed`."""
    found: list[tuple[ServiceClient, bytes]] = []
    failures: list[CommandFailed] = []
    for service_client in clients(service, addresses):
        try:
            found.append((service_client, service_client.get(path_of(letter_id))))
        except CommandFailed as failure:
            failures.append(failure)
    if len(found) > 1:
        # An event that several services consume may be parked at each of them.
        services = " and ".join(service_client.service for service_client, _ in found)
        raise CommandFailed(
            f"{printable(letter_id)} is parked at {services}: choose one with --service.",
            exit_code=ExitCode.USAGE,
        )
    if not found:
        raise max(failures, key=lambda failure: failure.exit_code != ExitCode.NOT_FOUND)
    return found[0]


def path_of(letter_id: str) -> str:
    """Return the path of a dead letter at its service."""
    return f"/dead-letters/{segment(letter_id)}"


def fields_of(raw: bytes) -> dict[str, Any]:
    """Return the fields of a JSON object."""
    fields: dict[str, Any] = msgspec.json.decode(raw)
    return fields


def print_groups(letters: Sequence[ListedLetter], by: str) -> None:
    """Print dead letters, grouped by error or order."""

    def key(each: ListedLetter) -> tuple[str, str]:
        letter = each.letter
        common = letter.group if by == "error" else letter.order_id or letter.key
        return each.service.service, common or ""

    now = datetime.now(UTC)
    for (service, common), group in groupby(sorted(letters, key=key), key):
        members = list(group)
        error = members[0].letter.error if by == "error" else None
        console().print(printable(" ".join(filter(None, (service, common or "-", error)))))
        rows = table(
            KEY("  id"), KEY("message"), NUMBER("attempts"), NUMBER("age"), TEXT("order or error")
        )
        for each in members:
            letter = each.letter
            about = (
                (letter.order_id or letter.key or "no order")
                if by == "error"
                else (letter.error or "")
            )
            rows.add_row(
                *cells(
                    f"  {letter.id}",
                    letter.event_type or "undecodable",
                    f"{letter.attempts:,}",
                    age(letter.parked_at, now),
                    about,
                )
            )
        console().print(rows)


def suggest_after_list(letters: Sequence[ListedLetter]) -> None:
    """Suggest to show the first of the listed letters."""
    first = letters[0]
    suggest(command("show", first.service, first.letter.id), "show a message and its error")


def print_details(service_client: ServiceClient, letter: DeadLetterDetails) -> None:
    """Print a dead letter: its fields, attempts, message and error."""
    rows = {
        "id": letter.id,
        "service": service_client.service,
        "state": letter.state,
        "order": letter.order_id,
        "about": None if letter.order_id else letter.key,
        "message": letter.event_type,
        "subject": letter.subject,
        "group": letter.group,
        "parked": day_and_time(letter.parked_at),
        "retry at": letter.retry_at and day_and_time(letter.retry_at),
        "closed": letter.closed_at and day_and_time(letter.closed_at),
        "closed by": letter.closed_by,
        "reason": letter.reason,
        "replaces": letter.replaces,
        "replaced by": letter.replaced_by,
        "attempts": f"{letter.attempts:,}",
    }
    out = console()
    out.print(grid((name, value) for name, value in rows.items() if value))
    for attempt in letter.history:
        who = f" (requested by {attempt.asked_by})" if attempt.asked_by else ""
        out.print(printable(f"  {day_and_time(attempt.at)}{who}: {attempt.error or 'succeeded'}"))
    out.print("\nMessage:")
    out.print(_shown(letter))
    if letter.traceback:
        out.print("\nError:")
        out.print("\n".join(map(printable, letter.traceback.splitlines())))


def _shown(letter: DeadLetterDetails) -> str:
    if letter.body_base64 is None:
        return msgspec.json.format(bytes(letter.body)).decode()
    return repr(base64.b64decode(letter.body_base64))


def how_to_check(service_client: ServiceClient, letter_id: str) -> str:
    """Return how a user checks the result of a request that got no response."""
    return f"Check with `{command('show', service_client, letter_id)}`."


def command(verb: str, service_client: ServiceClient, letter_id: str) -> str:
    """Return a `todoku dead` command about a letter."""
    return f"todoku dead {verb} {letter_id} --service {service_client.service}"


def suggest_order(letter: DeadLetterDetails) -> None:
    """Suggest to look at the order that the letter is about."""
    if letter.order_id:
        suggest(f"todoku order show {letter.order_id}", "see the status of its order")

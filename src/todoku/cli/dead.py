"""`todoku dead`: handle dead letters, the messages that a service could not process."""

import base64
import getpass
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter, validators

from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, Addresses, AddressFlags, ServiceName, settings_from
from todoku.cli.formatting import age, counted, day_and_time, printable
from todoku.cli.options import ItemsMax, Json, JsonLines
from todoku.cli.output import (
    KEY,
    NUMBER,
    TEXT,
    cells,
    console,
    grid,
    note,
    suggest,
    table,
    write_line,
    write_object,
)
from todoku.cli.responses import DeadLetter, DeadLetterDetails, ScheduledRetries

dead = App(name="dead", help="Handle dead letters: messages that a service could not process.")

STDIN = "-"

Id = Annotated[str, Parameter(name="ID")]
Service = Annotated[
    ServiceName | None,
    Parameter(help="Only this service; default: all services.", show_default=False),
]
Correction = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
Rate = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))]
By = Annotated[
    str | None,
    Parameter(help="Who decided this; default: your login name.", show_default=False),
]


class ListedLetter(msgspec.Struct, frozen=True):
    """A dead letter and the service that stores it."""

    service: ServiceClient
    letter: DeadLetter
    raw: bytes


@dead.command(name="list")
def list_letters(
    *,
    service: Service = None,
    by: Literal["error", "order"] = "error",
    state: Literal["PARKED", "RETRIED", "EDITED", "DISCARDED"] = "PARKED",
    order: str | None = None,
    group: str | None = None,
    limit: ItemsMax = 100,
    json: JsonLines = False,
    addresses: Addresses = None,
) -> None:
    """List dead letters, grouped by their error. Personal data is omitted.

    For example:

        todoku dead list
        todoku dead list --by order --service inventory
        todoku dead list --state DISCARDED --json | jq -r '.reason'

    Parameters
    ----------
    by
        Group the letters by this.
    state
        Only letters with this state.
    order
        Only letters about the order with this id.
    group
        Only letters of this group, by its id in the list.
    """
    wanted = {"state": state, "orderId": order, "group": group}
    letters = [
        letter for each in _services(service, addresses) for letter in _listed(each, wanted, limit)
    ]
    if json:
        for each in letters:
            write_line(msgspec.json.encode({"service": each.service.service} | _fields(each.raw)))
    elif letters:
        _print_groups(letters, by)
        _suggest_after_list(letters)
    else:
        note(f"no dead letters with state {state}")


@dead.command
def show(
    letter_id: Id,
    /,
    *,
    service: Service = None,
    json: Json = False,
    addresses: Addresses = None,
) -> None:
    """Show a dead letter: the message, each attempt to process it, and the error.

    For example:

        todoku dead show 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e
        todoku dead show 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --json | jq .body.data > message.json

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list` or `todoku order show`.
    """
    service_client, raw = _find(letter_id, service, addresses)
    if json:
        write_object(raw)
        return
    letter = service_client.read(raw, DeadLetterDetails)
    _print_details(service_client, letter)
    if letter.state == "PARKED":
        suggest(_command("retry", service_client, letter.id), "retry it once the cause is fixed")


@dead.command
def retry(
    *letter_ids: Id,
    service: Service = None,
    group: str | None = None,
    all: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    rate: Rate = 10,
    by: By = None,
    json: JsonLines = False,
    addresses: Addresses = None,
) -> ExitCode:
    """Retry dead letters: the given ones at once, a group or all in the background.

    A message that fails again stays parked. Exits with 1 if a given one does.

    For example:

        todoku dead retry 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e
        todoku dead retry --group 5a0c2e91b7d4 --rate 5
        todoku dead retry --all --service inventory

    Parameters
    ----------
    letter_ids
        The ids, from `todoku dead list`.
    group
        All letters of this group, by its id in `todoku dead list`.
    all
        All parked letters.
    rate
        Retries per second at each service, with --group or --all.
    """
    if bool(letter_ids) + bool(group) + all != 1:
        raise CommandFailed("give either ids, or --group, or --all.", exit_code=ExitCode.USAGE)
    who = by or _login_name()
    if letter_ids:
        return _retry_each(letter_ids, service, who, json, addresses)
    _schedule(service, group, rate, who, json, addresses)
    return ExitCode.OK


@dead.command
def edit(
    letter_id: Id,
    /,
    *,
    file: Correction = None,
    service: Service = None,
    by: By = None,
    json: Json = False,
    addresses: Addresses = None,
) -> ExitCode:
    """Replace a dead letter by a corrected message, and process that.

    The correction is the event's data as JSON, of the same type and for the same order. Exits with
    1 if processing it fails too: then the correction is parked instead.

    For example:

        todoku dead edit 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e
        todoku dead edit 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --file message.json

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list`.
    file
        The file with the correction, - for stdin; default: open your $EDITOR.
    """
    service_client, raw = _find(letter_id, service, addresses)
    letter = service_client.read(raw, DeadLetterDetails)
    data = _read(file) if file is not None else _edited(letter)
    try:
        body = msgspec.json.encode({"data": msgspec.Raw(data), "by": by or _login_name()})
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandFailed(
            f"the correction is not JSON: {error}.", exit_code=ExitCode.USAGE
        ) from error
    answer = service_client.send(
        "POST", f"{_path(letter.id)}/edit", body, find_out=_check(service_client, letter.id)
    )
    if json:
        write_object(answer)
    successor = service_client.read(answer, DeadLetterDetails)
    if successor.state == "PARKED":
        note(
            f"the correction failed too, parked as {successor.id}: {printable(successor.error or '')}"
        )
        suggest(_command("edit", service_client, successor.id), "correct it again")
        return ExitCode.FAILED
    note(f"processed as {successor.id}")
    _suggest_order(successor)
    return ExitCode.OK


@dead.command
def discard(
    letter_id: Id,
    /,
    *,
    reason: str,
    by: By = None,
    service: Service = None,
    json: Json = False,
    addresses: Addresses = None,
) -> None:
    """Discard a parked message. It stays on record, with the reason and your name.

    For example:

        todoku dead discard 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --reason "from a test run"

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list`.
    reason
        Why the message is not needed.
    """
    service_client, raw = _find(letter_id, service, addresses)
    letter = service_client.read(raw, DeadLetterDetails)
    answer = service_client.send(
        "POST",
        f"{_path(letter.id)}/discard",
        msgspec.json.encode({"reason": reason, "by": by or _login_name()}),
        find_out=_check(service_client, letter.id),
    )
    if json:
        write_object(answer)
    note(f"{letter.id} discarded at {service_client.service}")
    _suggest_order(letter)


def _services(service: ServiceName | None, addresses: AddressFlags | None) -> list[ServiceClient]:
    settings = settings_from(addresses).settings
    return [client(name, None, settings) for name in ([service] if service else SYSTEM_HERE.names)]


def _listed(
    service_client: ServiceClient, wanted: dict[str, str | None], limit: int
) -> Iterator[ListedLetter]:
    for raw in service_client.list("/dead-letters", wanted, items_max=limit):
        yield ListedLetter(service_client, service_client.read(raw, DeadLetter), raw)


def _find(
    letter_id: str, service: ServiceName | None, addresses: AddressFlags | None
) -> tuple[ServiceClient, bytes]:
    """Return the service that stores the letter, and the letter. Raises `CommandFailed`."""
    found: list[tuple[ServiceClient, bytes]] = []
    failures: list[CommandFailed] = []
    for service_client in _services(service, addresses):
        try:
            found.append((service_client, service_client.get(_path(letter_id))))
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


def _path(letter_id: str) -> str:
    return f"/dead-letters/{segment(letter_id)}"


def _retry_each(
    letter_ids: Sequence[str],
    service: ServiceName | None,
    by: str,
    json: bool,
    addresses: AddressFlags | None,
) -> ExitCode:
    outcome = ExitCode.OK
    for letter_id in letter_ids:
        service_client, _ = _find(letter_id, service, addresses)
        try:
            answer = service_client.send(
                "POST",
                f"{_path(letter_id)}/retry",
                msgspec.json.encode({"by": by}),
                find_out=_check(service_client, letter_id),
            )
        except CommandFailed as failure:
            if failure.exit_code is not ExitCode.REFUSED:
                raise
            note(f"{printable(letter_id)} at {service_client.service}:")
            print(str(failure).removeprefix("todoku: "), file=sys.stderr)
            suggest(_command("show", service_client, letter_id), "read the error")
            outcome = ExitCode.FAILED
        else:
            if json:
                write_line(answer)
            note(f"{printable(letter_id)} at {service_client.service}: processed")
    return outcome


def _schedule(
    service: ServiceName | None,
    group: str | None,
    rate: int,
    by: str,
    json: bool,
    addresses: AddressFlags | None,
) -> None:
    body = msgspec.json.encode(
        {"group": group, "all": group is None, "ratePerSecond": rate, "by": by}
    )
    for service_client in _services(service, addresses):
        answer = service_client.send(
            "POST", "/dead-letters/retry", body, find_out="Check with `todoku dead list`."
        )
        if json:
            write_line(msgspec.json.encode({"service": service_client.service} | _fields(answer)))
        scheduled = service_client.read(answer, ScheduledRetries)
        if scheduled.scheduled:
            last = day_and_time(scheduled.last_at)
            letters = counted(scheduled.scheduled, "dead letter")
            note(f"{service_client.service}: {letters} scheduled for retry, the last at {last}")
        else:
            note(f"{service_client.service}: nothing to retry")
    suggest("todoku dead list", "see what is still parked afterwards")


def _fields(raw: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(raw)
    return fields


def _print_groups(letters: Sequence[ListedLetter], by: str) -> None:
    def key(each: ListedLetter) -> tuple[str, str]:
        letter = each.letter
        common = letter.group if by == "error" else letter.order_id
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
            about = (letter.order_id or "no order") if by == "error" else (letter.error or "")
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


def _suggest_after_list(letters: Sequence[ListedLetter]) -> None:
    first = letters[0]
    suggest(_command("show", first.service, first.letter.id), "show a message and its error")


def _print_details(service_client: ServiceClient, letter: DeadLetterDetails) -> None:
    rows = {
        "id": letter.id,
        "service": service_client.service,
        "state": letter.state,
        "order": letter.order_id,
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


def _edited(letter: DeadLetterDetails) -> bytes:
    """Return the event's data after the user has edited it. Raises `CommandFailed`."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandFailed(
            "give the correction with --file, or set EDITOR.", exit_code=ExitCode.USAGE
        )
    before = msgspec.json.format(_data(letter)) + b"\n"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{letter.id}.json"
        file.write_bytes(before)
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            after = file.read_bytes()
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise CommandFailed(f"{editor} failed: {error}. Nothing was changed.") from error
    if after == before:
        raise CommandFailed("the data was not edited, so nothing was changed.")
    return after


def _data(letter: DeadLetterDetails) -> bytes:
    """Return the data of the message, or an empty object."""
    message = msgspec.json.decode(letter.body)
    return msgspec.json.encode(message.get("data", {}) if isinstance(message, dict) else {})


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"cannot read {printable(file)}: {error.strerror}.", exit_code=ExitCode.USAGE
        ) from error


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # in a container the user may have no name
        raise CommandFailed("give your name with --by.", exit_code=ExitCode.USAGE) from error


def _check(service_client: ServiceClient, letter_id: str) -> str:
    return f"Check with `{_command('show', service_client, letter_id)}`."


def _command(verb: str, service_client: ServiceClient, letter_id: str) -> str:
    return f"todoku dead {verb} {letter_id} --service {service_client.service}"


def _suggest_order(letter: DeadLetterDetails) -> None:
    if letter.order_id:
        suggest(f"todoku order show {letter.order_id}", "see the status of its order")

"""`todoku dead`: see to the messages that a service could not deal with."""

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

from todoku.cli.answers import DeadLetter, DeadLetterDetails, ScheduledRetries
from todoku.cli.client import Client, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses, AddressFlags, settings_from
from todoku.cli.options import ItemsMax, Json, JsonLines
from todoku.cli.output import (
    KEY,
    NUMBER,
    TEXT,
    cells,
    console,
    grid,
    say,
    suggest,
    table,
    write_line,
    write_object,
)
from todoku.cli.words import age, day_and_time, printable
from todoku.settings import SERVICES, ServiceName

dead = App(name="dead", help="See to the messages that a service could not deal with.")

STDIN = "-"

Id = Annotated[str, Parameter(name="ID")]
Service = Annotated[
    ServiceName | None,
    Parameter(help="Only at this service; without it, every service is asked.", show_default=False),
]
Correction = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
Rate = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))]
By = Annotated[
    str | None,
    Parameter(help="Who says so; without it, your login name.", show_default=False),
]


class Held(msgspec.Struct, frozen=True):
    """A letter and the service that keeps it."""

    service: Client
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
    """List dead letters, those that failed alike together. What they say about people is left out.

    For example:

        todoku dead list
        todoku dead list --by order --service inventory
        todoku dead list --state DISCARDED --json | jq -r '.reason'

    Parameters
    ----------
    by
        What letters that stand together have in common.
    state
        Only letters in this state.
    order
        Only letters about this order, given by its id.
    group
        Only letters of this group, as the list names it.
    """
    wanted = {"state": state, "orderId": order, "group": group}
    held = [
        letter for each in _services(service, addresses) for letter in _listed(each, wanted, limit)
    ]
    if json:
        for each in held:
            write_line(msgspec.json.encode({"service": each.service.service} | _fields(each.raw)))
    elif held:
        _print_groups(held, by)
        _suggest_after_list(held)
    else:
        say(f"no message is {state}")


@dead.command
def show(
    letter_id: Id,
    /,
    *,
    service: Service = None,
    json: Json = False,
    addresses: Addresses = None,
) -> None:
    """Show a dead letter: the message, each attempt at it, and what went wrong.

    For example:

        todoku dead show 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e
        todoku dead show 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --json | jq .body.data > message.json

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list` or `todoku order show`.
    """
    keeper, raw = _find(letter_id, service, addresses)
    if json:
        write_object(raw)
        return
    letter = keeper.read(raw, DeadLetterDetails)
    _print_details(keeper, letter)
    if letter.state == "PARKED":
        suggest(_command("retry", keeper, letter.id), "once the cause is removed, try it again")


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
    """Try parked messages again: those that are named, now; a group or all, one after the other.

    A message that fails again stays parked; exit code 1 if a named one does.

    For example:

        todoku dead retry 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e
        todoku dead retry --group 5a0c2e91b7d4 --rate 5
        todoku dead retry --all --service inventory

    Parameters
    ----------
    letter_ids
        The ids, from `todoku dead list`.
    group
        All that failed alike, as `todoku dead list` names them.
    all
        All that is parked.
    rate
        Of a group or of all, how many a second at each service.
    """
    if bool(letter_ids) + bool(group) + all != 1:
        raise CommandFailed(
            "name the messages by their ids, or by --group, or by --all.", exit_code=ExitCode.USAGE
        )
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
    """Put a corrected message in a parked one's place, and have it dealt with.

    The correction is the event's data as JSON, of the same type and about the same order. Exit code
    1 if it cannot be dealt with either: then it is parked in the old one's place.

    For example:

        todoku dead edit 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e
        todoku dead edit 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --file message.json

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list`.
    file
        The file with the correction, - for stdin; without it, your $EDITOR is opened.
    """
    keeper, raw = _find(letter_id, service, addresses)
    letter = keeper.read(raw, DeadLetterDetails)
    data = _read(file) if file is not None else _edited(letter)
    try:
        body = msgspec.json.encode({"data": msgspec.Raw(data), "by": by or _login_name()})
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandFailed(
            f"the correction is not JSON: {error}.", exit_code=ExitCode.USAGE
        ) from error
    answer = keeper.send(
        "POST", f"{_path(letter.id)}/edit", body, find_out=_look(keeper, letter.id)
    )
    if json:
        write_object(answer)
    successor = keeper.read(answer, DeadLetterDetails)
    if successor.state == "PARKED":
        say(f"the correction is parked as {successor.id}: {printable(successor.error or '')}")
        suggest(_command("edit", keeper, successor.id), "correct it once more")
        return ExitCode.FAILED
    say(f"dealt with, as {successor.id}")
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
    """Do without a parked message. It is kept, with the reason and who gave it.

    For example:

        todoku dead discard 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --reason "from a test run"

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list`.
    reason
        Why it is right to do this.
    """
    keeper, raw = _find(letter_id, service, addresses)
    letter = keeper.read(raw, DeadLetterDetails)
    answer = keeper.send(
        "POST",
        f"{_path(letter.id)}/discard",
        msgspec.json.encode({"reason": reason, "by": by or _login_name()}),
        find_out=_look(keeper, letter.id),
    )
    if json:
        write_object(answer)
    say(f"{letter.id} is discarded at {keeper.service}")
    _suggest_order(letter)


def _services(service: ServiceName | None, addresses: AddressFlags | None) -> list[Client]:
    settings = settings_from(addresses).settings
    return [client(name, None, settings) for name in ([service] if service else SERVICES)]


def _listed(keeper: Client, wanted: dict[str, str | None], limit: int) -> Iterator[Held]:
    for raw in keeper.list("/dead-letters", wanted, items_max=limit):
        yield Held(keeper, keeper.read(raw, DeadLetter), raw)


def _find(
    letter_id: str, service: ServiceName | None, addresses: AddressFlags | None
) -> tuple[Client, bytes]:
    """The service that keeps the letter, and the letter. Raises `CommandFailed`."""
    found: list[tuple[Client, bytes]] = []
    failures: list[CommandFailed] = []
    for keeper in _services(service, addresses):
        try:
            found.append((keeper, keeper.get(_path(letter_id))))
        except CommandFailed as failure:
            failures.append(failure)
    if len(found) > 1:
        # An event that several services react to may be parked at each of them.
        runners = " and ".join(keeper.service for keeper, _ in found)
        raise CommandFailed(
            f"{printable(letter_id)} is at {runners}: say which with --service.",
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
        keeper, _ = _find(letter_id, service, addresses)
        try:
            answer = keeper.send(
                "POST",
                f"{_path(letter_id)}/retry",
                msgspec.json.encode({"by": by}),
                find_out=_look(keeper, letter_id),
            )
        except CommandFailed as failure:
            if failure.exit_code is not ExitCode.REFUSED:
                raise
            say(f"{printable(letter_id)} at {keeper.service}:")
            print(str(failure).removeprefix("todoku: "), file=sys.stderr)
            suggest(_command("show", keeper, letter_id), "read what went wrong")
            outcome = ExitCode.FAILED
        else:
            if json:
                write_line(answer)
            say(f"{printable(letter_id)} at {keeper.service} is dealt with")
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
    for keeper in _services(service, addresses):
        answer = keeper.send(
            "POST", "/dead-letters/retry", body, find_out="Look with `todoku dead list`."
        )
        if json:
            write_line(msgspec.json.encode({"service": keeper.service} | _fields(answer)))
        scheduled = keeper.read(answer, ScheduledRetries)
        if scheduled.scheduled:
            last = day_and_time(scheduled.last_at)
            say(f"{scheduled.scheduled:,} at {keeper.service} are tried again, the last at {last}")
        else:
            say(f"nothing to try again at {keeper.service}")
    suggest("todoku dead list", "see what is still parked when they are done")


def _fields(raw: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(raw)
    return fields


def _print_groups(held: Sequence[Held], by: str) -> None:
    def key(each: Held) -> tuple[str, str]:
        letter = each.letter
        common = letter.group if by == "error" else letter.order_id
        return each.service.service, common or ""

    now = datetime.now(UTC)
    for (service, common), group in groupby(sorted(held, key=key), key):
        together = list(group)
        error = together[0].letter.error if by == "error" else None
        console().print(printable(" ".join(filter(None, (service, common or "-", error)))))
        rows = table(KEY("  id"), KEY("message"), NUMBER("tried"), NUMBER("age"), TEXT("about"))
        for each in together:
            letter = each.letter
            about = (letter.order_id or "no order") if by == "error" else (letter.error or "")
            rows.add_row(
                *cells(
                    f"  {letter.id}",
                    letter.event_type or "unreadable",
                    f"{letter.attempts}×",
                    age(letter.parked_at, now),
                    about,
                )
            )
        console().print(rows)


def _suggest_after_list(held: Sequence[Held]) -> None:
    first = held[0]
    suggest(_command("show", first.service, first.letter.id), "read one, and what went wrong")


def _print_details(keeper: Client, letter: DeadLetterDetails) -> None:
    rows = {
        "id": letter.id,
        "service": keeper.service,
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
        "tried": f"{letter.attempts:,} times",
    }
    out = console()
    out.print(grid((name, value) for name, value in rows.items() if value))
    for attempt in letter.history:
        who = f" (asked by {attempt.asked_by})" if attempt.asked_by else ""
        out.print(printable(f"  {day_and_time(attempt.at)}{who}: {attempt.error or 'went well'}"))
    out.print("\nThe message:")
    out.print(_shown(letter))
    if letter.traceback:
        out.print("\nWhat went wrong:")
        out.print("\n".join(map(printable, letter.traceback.splitlines())))


def _shown(letter: DeadLetterDetails) -> str:
    if letter.body_base64 is None:
        return msgspec.json.format(bytes(letter.body)).decode()
    return repr(base64.b64decode(letter.body_base64))


def _edited(letter: DeadLetterDetails) -> bytes:
    """The event's data, as a person leaves it in their editor."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandFailed(
            "say where the correction is with --file, or set EDITOR.", exit_code=ExitCode.USAGE
        )
    before = msgspec.json.format(_data(letter)) + b"\n"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{letter.id}.json"
        file.write_bytes(before)
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
            after = file.read_bytes()
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            raise CommandFailed(
                f"{editor} did not end well: {error}. Nothing was changed."
            ) from error
    if after == before:
        raise CommandFailed("nothing was corrected, so nothing was changed.")
    return after


def _data(letter: DeadLetterDetails) -> bytes:
    """The data of the message, as far as there is any to begin with."""
    message = msgspec.json.decode(letter.body)
    return msgspec.json.encode(message.get("data", {}) if isinstance(message, dict) else {})


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STDIN else Path(file).read_bytes()
    except OSError as error:
        raise CommandFailed(
            f"{printable(file)} cannot be read: {error.strerror}.", exit_code=ExitCode.USAGE
        ) from error


def _login_name() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:  # a container may know its user by number only
        raise CommandFailed("say who you are with --by.", exit_code=ExitCode.USAGE) from error


def _look(keeper: Client, letter_id: str) -> str:
    return f"Look with `{_command('show', keeper, letter_id)}`."


def _command(verb: str, keeper: Client, letter_id: str) -> str:
    return f"todoku dead {verb} {letter_id} --service {keeper.service}"


def _suggest_order(letter: DeadLetterDetails) -> None:
    if letter.order_id:
        suggest(f"todoku order show {letter.order_id}", "see where its order is now")

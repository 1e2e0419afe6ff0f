"""`todoku dead`: handle dead letters, the messages that a service could not process."""

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter, validators

from todoku.cli.corrections import edited, read_correction
from todoku.cli.dead_letters import (
    clients,
    command,
    fields_of,
    find,
    how_to_check,
    listed,
    path_of,
    print_details,
    print_groups,
    suggest_after_list,
    suggest_order,
)
from todoku.cli.deciding import who
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses, AddressFlags, ServiceName
from todoku.cli.formatting import counted, day_and_time, printable
from todoku.cli.options import By, Flag, ItemsMax, Json, JsonLines
from todoku.cli.output import note, suggest, write_line, write_object
from todoku.cli.responses import DeadLetterDetails, ScheduledRetries

dead = App(name="dead", help="Handle dead letters: messages that a service could not process.")

Id = Annotated[str, Parameter(name="ID")]
Service = Annotated[
    ServiceName | None,
    Parameter(help="Only this service; default: all services.", show_default=False),
]
Correction = Annotated[str | None, Parameter(allow_leading_hyphen=True)]
Rate = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=1_000))]


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
        letter for each in clients(service, addresses) for letter in listed(each, wanted, limit)
    ]
    if json:
        for each in letters:
            write_line(msgspec.json.encode({"service": each.service.service} | fields_of(each.raw)))
    elif letters:
        print_groups(letters, by)
        suggest_after_list(letters)
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
        todoku dead show 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --json |
            jq .body.data > message.json

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list` or `todoku order show`.
    """
    service_client, raw = find(letter_id, service, addresses)
    if json:
        write_object(raw)
        return
    letter = service_client.read(raw, DeadLetterDetails)
    print_details(service_client, letter)
    if letter.state == "PARKED":
        suggest(command("retry", service_client, letter.id), "retry it once the cause is fixed")


@dead.command
def retry(
    *letter_ids: Id,
    service: Service = None,
    group: str | None = None,
    all: Flag = False,
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
    if letter_ids:
        return _retry_each(letter_ids, service, by, json, addresses)
    _schedule(service, group, rate, by, json, addresses)
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

    The correction is the event's data as JSON, of the same type and for the same
    order. Exits with 1 if processing it fails too: then the correction is parked
    instead.

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
    service_client, raw = find(letter_id, service, addresses)
    letter = service_client.read(raw, DeadLetterDetails)
    data = read_correction(file) if file is not None else edited(letter)
    try:
        body = msgspec.json.encode({"data": msgspec.Raw(data), "by": who(by, service_client)})
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandFailed(
            f"the correction is not JSON: {error}.", exit_code=ExitCode.USAGE
        ) from error
    answer = service_client.send(
        "POST", f"{path_of(letter.id)}/edit", body, find_out=how_to_check(service_client, letter.id)
    )
    if json:
        write_object(answer)
    successor = service_client.read(answer, DeadLetterDetails)
    if successor.state == "PARKED":
        note(
            f"the correction failed too, parked as {successor.id}: {printable(successor.error or '')}"
        )
        suggest(command("edit", service_client, successor.id), "correct it again")
        return ExitCode.FAILED
    note(f"processed as {successor.id}")
    suggest_order(successor)
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

        todoku dead discard 0198c2f0-7b1a-8c3e-9d55-3f6a1c2b4d5e --reason 'A test.'

    Parameters
    ----------
    letter_id
        The id, from `todoku dead list`.
    reason
        Why the message is not needed.
    """
    service_client, raw = find(letter_id, service, addresses)
    letter = service_client.read(raw, DeadLetterDetails)
    answer = service_client.send(
        "POST",
        f"{path_of(letter.id)}/discard",
        msgspec.json.encode({"reason": reason, "by": who(by, service_client)}),
        find_out=how_to_check(service_client, letter.id),
    )
    if json:
        write_object(answer)
    note(f"{letter.id} discarded at {service_client.service}")
    suggest_order(letter)


def _retry_each(
    letter_ids: Sequence[str],
    service: ServiceName | None,
    by: str | None,
    json: bool,
    addresses: AddressFlags | None,
) -> ExitCode:
    outcome = ExitCode.OK
    for letter_id in letter_ids:
        service_client, _ = find(letter_id, service, addresses)
        try:
            answer = service_client.send(
                "POST",
                f"{path_of(letter_id)}/retry",
                msgspec.json.encode({"by": who(by, service_client)}),
                find_out=how_to_check(service_client, letter_id),
            )
        except CommandFailed as failure:
            if failure.exit_code is not ExitCode.REFUSED:
                raise
            note(f"{printable(letter_id)} at {service_client.service}:")
            print(str(failure).removeprefix("todoku: "), file=sys.stderr)
            suggest(command("show", service_client, letter_id), "read the error")
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
    by: str | None,
    json: bool,
    addresses: AddressFlags | None,
) -> None:
    chosen = {"group": group, "all": group is None, "ratePerSecond": rate}
    for service_client in clients(service, addresses):
        body = msgspec.json.encode(chosen | {"by": who(by, service_client)})
        answer = service_client.send(
            "POST", "/dead-letters/retry", body, find_out="Check with `todoku dead list`."
        )
        if json:
            write_line(msgspec.json.encode({"service": service_client.service} | fields_of(answer)))
        scheduled = service_client.read(answer, ScheduledRetries)
        if scheduled.scheduled:
            last = day_and_time(scheduled.last_at)
            letters = counted(scheduled.scheduled, "dead letter")
            note(f"{service_client.service}: {letters} scheduled for retry, the last at {last}")
        else:
            note(f"{service_client.service}: nothing to retry")
    suggest("todoku dead list", "see what is still parked afterwards")

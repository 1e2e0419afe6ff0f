"""`todoku person`: export and erase everything about a person."""

import time
from typing import Annotated

import msgspec
from cyclopts import App, Parameter

from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, Addresses, settings_to_reach
from todoku.cli.formatting import counted
from todoku.cli.options import Json, Seconds
from todoku.cli.output import note, write_object
from todoku.cli.responses import Erased, Exported

OWNER = "orders"
POLL_SECONDS = 0.2

person = App(name="person", help="Export and erase everything about a person.")

User = Annotated[str, Parameter(name="USER")]


@person.command
def export(user: User, /, *, json: Json = True, addresses: Addresses = None) -> None:
    """Print everything that the services store about a person, as one JSON object.

    It holds whole rows by table: orders with their histories, reservations,
    shipments, dead letters, API keys, and what the person did, from the audit
    logs.

    For example:

        todoku person export user123 > user123.json

    Parameters
    ----------
    user
        The id of the person: the userId of the orders.
    """
    settings = settings_to_reach(addresses).settings
    found: dict[str, object] = {}
    body: dict[str, object] = {"userId": user}
    for name in (OWNER, *(each for each in SYSTEM_HERE.names if each != OWNER)):
        service = client(name, None, settings)
        answer = _ask(service, "/persons/export", body)
        if answer is None:
            continue
        body = {"userId": user, "orderIds": service.read(answer, Exported).order_ids}
        found[name] = msgspec.json.decode(answer)["tables"]
    write_object(msgspec.json.encode({"userId": user, "services": found}))


@person.command
def erase(
    user: User,
    /,
    *,
    wait_seconds: Seconds = 30.0,
    json: Json = False,
    addresses: Addresses = None,
) -> ExitCode:
    """Erase everything about a person, at every service.

    Refused while an order of the person is open, or a dead letter about one, or an
    API key of the person valid. What was ordered and sold stays, without whose it
    was. A restored backup does not bring it back, as long as the folder `erasures`
    in the data folder is kept: it is outside of every backup. Events on the stream
    end with its age.

    For example:

        todoku person erase user123

    Parameters
    ----------
    user
        The id of the person: the userId of the orders.
    wait_seconds
        How long to wait until every service has erased it.
    """
    settings = settings_to_reach(addresses).settings
    owner = client(OWNER, None, settings)
    answer = owner.send(
        "POST",
        "/persons/erase",
        msgspec.json.encode({"userId": user}),
        find_out="It is safe to repeat it.",
    )
    erased = owner.read(answer, Erased)
    waiting = _wait(
        [client(name, None, settings) for name in SYSTEM_HERE.names], erased, wait_seconds
    )
    if json:
        write_object(answer)
    else:
        note(f"erased: {counted(erased.orders, 'order')}")
    for name in waiting:
        note(f"{name} has not erased it yet: it will, when it receives the event from orders")
    return ExitCode.FAILED if waiting else ExitCode.OK


def _wait(services: list[ServiceClient], erased: Erased, seconds: float) -> list[str]:
    """Wait until each service has carried out the erasures; return those that have not."""
    deadline = time.monotonic() + seconds
    while True:
        waiting = [each for each in services if not _has_erased(each, erased)]
        if not waiting or time.monotonic() >= deadline:
            return [each.service for each in waiting]
        services = waiting
        time.sleep(POLL_SECONDS)


def _has_erased(service: ServiceClient, erased: Erased) -> bool:
    try:
        for erasure in erased.erasures:
            service.get(f"/persons/erasures/{segment(erasure)}")
    except CommandFailed as failure:
        if failure.problem == "unknown-address":
            return True  # A service that stores nothing about persons.
        if failure.problem == "unknown-person" or failure.exit_code is ExitCode.UNREACHABLE:
            return False
        raise
    return True


def _ask(service: ServiceClient, path: str, body: dict[str, object]) -> bytes | None:
    """Return the answer of a service, None if it stores nothing about persons."""
    try:
        return service.send(
            "POST", path, msgspec.json.encode(body), find_out="It is safe to repeat it."
        )
    except CommandFailed as failure:
        if failure.problem == "unknown-address":
            return None
        raise

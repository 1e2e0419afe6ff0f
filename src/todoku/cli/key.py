"""`todoku key`: create, list and revoke API keys."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cyclopts import App, Parameter

from todoku.cli.client import ServiceClient, client, segment
from todoku.cli.credential import credential
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, Addresses, settings_to_reach
from todoku.cli.formatting import day_and_time
from todoku.cli.options import Json, JsonLines, Texts, login_name
from todoku.cli.output import KEY, TEXT, cells, console, ids, note, table, write_lines, write_object
from todoku.cli.responses import CreatedKey, KeyDetails, KeyList
from todoku.settings import Settings

HOME = SYSTEM_HERE.names[0]
"""The service that creates and revokes keys."""

PREFIX = "tdk_"

REVOKED_WITHIN_SECONDS = 5.0
LOOK_SECONDS = 0.2
ANSWER_SECONDS_MAX = 1.0

KeyId = Annotated[str, Parameter(name="ID")]
Role = Literal["customer", "staff", "operator", "service"]
Roles = Annotated[tuple[Role, ...], Parameter(negative="", show_default=False)]

key = App(name="key", help="Create, list and revoke API keys.")


@key.command
def create(
    *,
    role: Roles = (),
    scope: Texts = (),
    owner: str | None = None,
    expires: str | None = None,
    json: Json = False,
    addresses: Addresses = None,
) -> None:
    """Create an API key, and print it: it is shown this once.

    It cannot permit more than your own credential.

    For example:

        todoku key create --role staff --owner alice
        (umask 077; todoku key create --scope metrics:read --owner grafana > key)

    Parameters
    ----------
    role
        What it permits, as a role. May be repeated.
    scope
        What it permits, as a scope such as orders:read. May be repeated.
    owner
        Whom the key stands for, a person or a program; for the role customer
        the userId of the orders. Default: your login name.
    expires
        When it expires, as 2030-01-02T03:04:05Z; default: when it is revoked.
    """
    if not role and not scope:
        raise CommandFailed(
            "say what the key is to permit: --role or --scope.", exit_code=ExitCode.USAGE
        )
    wish = {"owner": owner or login_name(), "scopes": [*role, *scope], "expiresAt": expires}
    home = client(HOME, None, settings_to_reach(addresses).settings)
    # Sent once: repeated, it would create another key.
    answer = home.request(
        "POST",
        "/keys",
        msgspec.json.encode(wish),
        find_out="`todoku key list` shows whether the key was created; revoke it then, since its"
        " secret is lost.",
    ).body
    created = home.read(answer, CreatedKey)
    if json:
        write_object(answer)
    else:
        print(created.key, flush=True)
    note(f"the key {created.id} of {created.owner} is created, and not shown again")


@key.command(name="list")
def list_keys(*, json: JsonLines = False, addresses: Addresses = None) -> None:
    """List API keys, without their secrets.

    For example:

        todoku key list
        todoku key list --json | jq -r 'select(.revokedAt == null) | .owner'
    """
    home = client(HOME, None, settings_to_reach(addresses).settings)
    raw = [bytes(each) for each in home.read(home.get("/keys"), KeyList).items]
    if json:
        write_lines(raw)
        return
    now = datetime.now(UTC)
    keys = [home.read(each, KeyDetails) for each in raw]
    rows = table(
        ids("key", (each.id for each in keys)),
        KEY("owner"),
        KEY("created"),
        KEY("last used"),
        KEY("state"),
        TEXT("scopes"),
    )
    for each in keys:
        used = "" if each.last_used_at is None else day_and_time(each.last_used_at)
        created = day_and_time(each.created_at)
        scopes = " ".join(each.scopes)
        rows.add_row(*cells(each.id, each.owner, created, used, _state(each, now), scopes))
    console().print(rows)


@key.command
def revoke(key_id: KeyId, /, *, json: Json = False, addresses: Addresses = None) -> ExitCode:
    """Revoke an API key, and wait until every service knows it.

    A service refuses the key within two seconds from then on. Those that do not
    know it within 5 seconds are named: they refuse it once the event from orders
    arrives there.

    For example:

        todoku key revoke 9f86d081884c7d65

    Parameters
    ----------
    key_id
        The id of the key, or the key itself.
    """
    key_id = key_id.removeprefix(PREFIX).partition("_")[0]
    settings = settings_to_reach(addresses).settings
    client(HOME, None, settings).send(
        "POST",
        f"/keys/{segment(key_id)}/revoke",
        b"",
        find_out="It is safe to repeat it.",
    )
    late = _wait(key_id, settings)
    informed = [name for name in SYSTEM_HERE.names if name not in late]
    if json:
        found = {"id": key_id, "refusedBy": informed, "notReached": late}
        write_object(msgspec.json.encode(found))
    elif informed:
        note(f"the key {key_id} is revoked; it is refused by: {', '.join(informed)}")
    if late:
        note(
            f"the key {key_id} is revoked, but these services did not answer, or do not know it yet:"
            f" {', '.join(late)}"
        )
    return ExitCode.FAILED if late else ExitCode.OK


def _state(found: KeyDetails, now: datetime) -> str:
    if found.revoked_at is not None:
        return f"revoked {day_and_time(found.revoked_at)}"
    if found.expires_at is None:
        return "valid"
    ends = day_and_time(found.expires_at)
    return f"expired {ends}" if found.expires_at <= now else f"valid until {ends}"


def _wait(key_id: str, settings: Settings) -> Sequence[str]:
    """Wait until every service knows that a key is revoked; return those that do not."""
    ends = time.monotonic() + REVOKED_WITHIN_SECONDS
    services = [
        client(name, None, settings, timeout_seconds=ANSWER_SECONDS_MAX)
        for name in SYSTEM_HERE.names
    ]
    while True:
        services = [each for each in services if not _refuses(each, key_id)]
        if not services or time.monotonic() >= ends:
            return [each.service for each in services]
        time.sleep(LOOK_SECONDS)


def _refuses(service: ServiceClient, key_id: str) -> bool:
    """Return whether a service knows that a key is revoked."""
    try:
        found = service.read(service.get(f"/keys/{segment(key_id)}"), KeyDetails)
    except CommandFailed as failure:
        # Whatever went wrong, the key is revoked: this service is only not known to know it.
        return failure.problem == "unauthenticated" and _is_own(key_id)
    return found.revoked_at is not None


def _is_own(key_id: str) -> bool:
    """Return whether this command sends the key itself."""
    return (credential() or "").startswith(f"{PREFIX}{key_id}_")

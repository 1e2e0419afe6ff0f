"""Find what can be paused, and what is, at the services."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Final, TypeVar

import msgspec
from cyclopts import Parameter

from todoku.cli.client import ServiceClient, client
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, AddressFlags, settings_to_reach
from todoku.cli.formatting import day_and_time, printable
from todoku.cli.output import note
from todoku.cli.responses import PauseDetails
from todoku.settings import Settings

SYSTEM: Final = "system"
SERVICE: Final = "service"
UNKNOWN_TARGET: Final = "unknown-pause-target"
PAUSES_MAX: Final = 10_000
LOOK_SECONDS_MAX: Final = 2.0

PRODUCT: Final = "product:"

What = Annotated[str, Parameter(name="WHAT")]
Product = Annotated[str | None, Parameter(show_default=False)]
T = TypeVar("T")


class Found(msgspec.Struct, frozen=True):
    """A pause and the service that stores it."""

    service: ServiceClient
    pause: PauseDetails
    raw: bytes

    @property
    def what(self) -> str:
        """What is paused, as `todoku resume` takes it."""
        return name_of(self.service, self.pause.target)


def chosen(what: str, product: str | None) -> str:
    """Return what a command is about: a product, if its id is given. Raises `CommandFailed` if `what` is
    something else."""
    if product is None:
        return what
    if what != SYSTEM:
        raise CommandFailed(
            f"give either {printable(what)!r} or --product, not both.", exit_code=ExitCode.USAGE
        )
    return f"{PRODUCT}{product}"


def name_of(service: ServiceClient, target: str) -> str:
    """Return what a target of a service is called on the command line."""
    return service.service if target == SERVICE else target


def places_of(what: str, addresses: AddressFlags | None) -> list[tuple[ServiceClient, str]]:
    """Return at which services `what` may be paused, and by which name there."""
    settings = settings_to_reach(addresses).settings
    target = SERVICE if what in (SYSTEM, *SYSTEM_HERE.names) else what
    names = (what,) if what in SYSTEM_HERE.names else SYSTEM_HERE.names
    return [(client(name, None, settings), target) for name in names]


def at_each(
    places: Sequence[tuple[ServiceClient, str]], do: Callable[[ServiceClient, str], T]
) -> tuple[list[T], list[CommandFailed]]:
    """Do something at each service; return the results, and what failed. Which service could not be reached
    is printed."""
    results: list[T] = []
    failures: list[CommandFailed] = []
    for service, target in places:
        try:
            results.append(do(service, target))
        except CommandFailed as failure:
            failures.append(failure)
            if failure.problem != UNKNOWN_TARGET:
                note(f"{service.service}: {failure.summary}")
    return results, failures


def find(service: ServiceClient, state: str | None = None) -> list[Found]:
    """Return the pauses of a service that have this state, or all."""
    found = service.list("/pauses", {"state": state}, items_max=PAUSES_MAX)
    return [Found(service, service.read(raw, PauseDetails), raw) for raw in found]


def paused_now(settings: Settings) -> list[Found]:
    """Return what is paused at the services that answer at once."""
    found: list[Found] = []
    for name in SYSTEM_HERE.names:
        with suppress(CommandFailed):
            service = client(name, None, settings, timeout_seconds=LOOK_SECONDS_MAX)
            found += find(service, "PAUSED")
    return found


def described(found: Found) -> str:
    """Return who has paused what, when, and why, on one line."""
    pause = found.pause
    return printable(
        f"{found.what} is paused since {day_and_time(pause.paused_at)} by {pause.paused_by}:"
        f" {pause.reason}"
    )


def outcome_of(failures: Sequence[CommandFailed]) -> ExitCode:
    """Return the exit code where some services may have failed."""
    codes = [failure.exit_code for failure in failures if failure.problem != UNKNOWN_TARGET]
    return codes[0] if codes else ExitCode.OK

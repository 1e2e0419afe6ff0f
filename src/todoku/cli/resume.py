"""`todoku resume`: end pauses."""

from typing import Annotated

import msgspec
from cyclopts import Parameter, validators

from todoku.cli.client import ServiceClient
from todoku.cli.deciding import who
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses
from todoku.cli.formatting import printable
from todoku.cli.options import By, JsonLines
from todoku.cli.output import note, write_lines
from todoku.cli.pausing import (
    Found,
    Product,
    What,
    at_each,
    chosen,
    described,
    find,
    outcome_of,
    places_of,
)

Rate = Annotated[
    int | None,
    Parameter(
        help="Starts per second at each service, at most, until what has waited is through; default: as"
        " many as there are.",
        validator=validators.Number(gte=1, lte=1_000),
        show_default=False,
    ),
]


def resume(
    what: What = "system",
    /,
    *,
    rate: Rate = None,
    product: Product = None,
    by: By = None,
    json: JsonLines = False,
    addresses: Addresses = None,
) -> ExitCode:
    """Let the system, a service, or one thing that it does go on after a pause.

    Ends all pauses of it. What is left of a timer begins to run again. The
    deadlines of orders did not move: one that has passed is kept for a while
    (--order-deadline-grace-seconds), then the order is cancelled.

    For example:

        todoku resume carrier --rate 50
        todoku resume --product prod1
        todoku resume

    Parameters
    ----------
    what
        The `system`, a service, or what a service does, as `todoku pauses` names it.
    product
        The id of a product that is paused.
    """
    what = chosen(what, product)

    def resume_all(service: ServiceClient, target: str) -> list[bytes]:
        paused = [each for each in find(service, "PAUSED") if each.pause.target == target]
        if not paused:
            return []
        body = msgspec.json.encode({"by": who(by, service), "rate": rate})
        return [_resume(each, body) for each in paused]

    places = places_of(what, addresses)
    answers, failures = at_each(places, resume_all)
    ended = [answer for each in answers for answer in each]
    if json:
        write_lines(ended)
    left, _ = at_each([place for place in places if not failures], lambda s, _: find(s, "PAUSED"))
    for found in (each for those in left for each in those):
        note(f"{described(found)} (`todoku resume {found.what}`)")
    if not ended and not failures:
        raise CommandFailed(
            f"{printable(what)} is not paused: see `todoku pauses`.", exit_code=ExitCode.REFUSED
        )
    return outcome_of(failures)


def _resume(found: Found, body: bytes) -> bytes:
    answer = found.service.send(
        "POST",
        f"/pauses/{found.pause.id}/resume",
        body,
        find_out="Check with `todoku pauses`.",
    )
    note(f"{printable(found.what)} goes on")
    return answer

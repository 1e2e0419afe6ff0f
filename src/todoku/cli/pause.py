"""`todoku pause`: pause the system, a service, or one thing that a service does."""

import msgspec

from todoku.cli.client import ServiceClient
from todoku.cli.deciding import who
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import SYSTEM_HERE, Addresses
from todoku.cli.formatting import printable
from todoku.cli.options import By, JsonLines
from todoku.cli.output import note, suggest, write_lines
from todoku.cli.pausing import (
    UNKNOWN_TARGET,
    Product,
    What,
    at_each,
    chosen,
    name_of,
    outcome_of,
    places_of,
)


def pause(
    what: What = "system",
    /,
    *,
    reason: str,
    product: Product = None,
    by: By = None,
    json: JsonLines = False,
    addresses: Addresses = None,
) -> ExitCode:
    """Pause the system, a service, or one thing that it does, such as the carrier.

    What is paused takes orders and messages, but starts nothing of its own accord:
    no call to another system, and nothing that is due. Timers stand still. A pause
    is stored, and ends with `todoku resume` only. Services that do not answer are
    not paused: they are named, and the exit code is not 0.

    For example:

        todoku pause carrier --reason "The warehouse is closed."
        todoku pause --product prod1 --reason "A batch is recalled."
        todoku pause shipping --reason "A new carrier is set up."
        todoku pause --reason "Moving to another machine."

    Parameters
    ----------
    what
        The `system`, a service, or what a service does: `carrier`.
    reason
        Why it is paused.
    product
        The id of a product: no order that contains it is booked with the carrier.
    """
    what = chosen(what, product)

    def post(service: ServiceClient, target: str) -> bytes:
        body = {"reason": reason, "by": who(by, service), "target": target}
        answer = service.send(
            "POST",
            "/pauses",
            msgspec.json.encode(body),
            find_out="Check with `todoku pauses`.",
        )
        note(f"{printable(name_of(service, target))} is paused")
        return answer

    answers, failures = at_each(places_of(what, addresses), post)
    if failures and not answers and all(each.problem == UNKNOWN_TARGET for each in failures):
        raise CommandFailed(
            f"nothing that can be paused is called {printable(what)!r}: give `system`, a service"
            f" ({', '.join(SYSTEM_HERE.names)}), or what a service does, such as `carrier`.",
            exit_code=ExitCode.USAGE,
        )
    if json:
        write_lines(answers)
    if answers:
        suggest(f"todoku resume {printable(what)}", "let it go on")
    return outcome_of(failures)

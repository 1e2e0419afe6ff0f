"""`todoku pauses`: list what is paused."""

import msgspec

from todoku.cli.client import ServiceClient
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses
from todoku.cli.formatting import day_and_time
from todoku.cli.options import Flag, JsonLines
from todoku.cli.output import KEY, TEXT, cells, console, note, suggest, table, write_line
from todoku.cli.pausing import SYSTEM, Found, at_each, find, outcome_of, places_of


def pauses(
    *,
    all: Flag = False,
    json: JsonLines = False,
    addresses: Addresses = None,
) -> ExitCode:
    """List what is paused, and what goes on slowly after a pause.

    For example:

        todoku pauses
        todoku pauses --all --json | jq -r .reason

    Parameters
    ----------
    all
        Also pauses that have ended.
    """

    def find_here(service: ServiceClient, _: str) -> list[Found]:
        return [each for each in find(service) if all or each.pause.state != "RESUMED"]

    answers, failures = at_each(places_of(SYSTEM, addresses), find_here)
    found = [each for those in answers for each in those]
    if json:
        for each in found:
            fields = msgspec.json.decode(each.raw)
            write_line(msgspec.json.encode({"service": each.service.service} | fields))
    elif found:
        _print(found)
    elif not failures:
        note("nothing is paused")
    return outcome_of(failures)


def _print(found: list[Found]) -> None:
    rows = table(
        KEY("service"), KEY("target"), KEY("state"), KEY("since"), TEXT("by"), TEXT("reason")
    )
    for each in found:
        pause = each.pause
        rate = f" at {pause.rate}/s" if pause.state == "RESUMING" else ""
        rows.add_row(
            *cells(
                each.service.service,
                pause.target,
                f"{pause.state}{rate}",
                day_and_time(pause.paused_at),
                pause.paused_by,
                pause.reason,
            )
        )
    console().print(rows)
    paused = [each for each in found if each.pause.state == "PAUSED"]
    if paused:
        suggest(f"todoku resume {paused[0].what}", "let it go on")

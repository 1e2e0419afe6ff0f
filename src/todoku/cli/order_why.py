"""`todoku order why`: what an order waits for, and what can be done."""

import shlex
from collections.abc import Iterator
from typing import Annotated

import msgspec
from cyclopts import Parameter

from todoku.cli.exit_codes import ExitCode
from todoku.cli.explanation import Explanation, explain
from todoku.cli.flags import Flags, settings_of_running
from todoku.cli.formatting import counted, day_and_time, printable
from todoku.cli.options import Json
from todoku.cli.output import console, write_object
from todoku.cli.waiting import WORDS


def why(
    order_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    json: Json = False,
    flags: Flags = None,
) -> ExitCode:
    """Tell why an order has not ended, and what you can do.

    Asks the order, its shipment and its dead letter, the services that it waits
    for, the broker, and what is paused. If the orders service does not answer, the
    order is read from its database. The first cause is the one to look at first.

    For example:

        todoku order why 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e
        todoku order why 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e --json | jq .causes

    Parameters
    ----------
    order_id
        The id that `todoku order place` printed.
    """
    # Imported here: only this command needs it.
    from todoku.cli.evidence import gather

    loaded, up = settings_of_running(flags)
    found = explain(gather(order_id, loaded.settings, up=None if up is None else up.pid))
    if json:
        write_object(msgspec.json.encode(found))
    else:
        # The commands have to find the same system.
        folder = (flags or {}).get("data_dir")
        before = f"TODOKU_DATA_DIR={shlex.quote(str(folder))} " if folder else ""
        for line in lines(found, before):
            console().print(printable(line))
    return ExitCode.OK


def lines(found: Explanation, before: str = "") -> Iterator[str]:
    """Yield an explanation as lines for people, with this before each command."""
    yield _headline(found)
    if found.last_error and found.attempts:
        yield f"{counted(found.attempts, 'attempt')}, last error: {found.last_error.splitlines()[0]}"
    if found.next_attempt_at:
        yield f"next attempt: {day_and_time(found.next_attempt_at)}"
    if found.deadline:
        yield f"deadline: {day_and_time(found.deadline)}"
    for cause in found.causes:
        yield ""
        yield cause.text
        if cause.fix:
            yield f"→ {cause.fix}"
        for action in cause.actions:
            yield f"    {before}{action.command}  # {action.purpose}"


def _headline(found: Explanation) -> str:
    if found.waits_for is None:
        return f"{found.order_id} is {found.status}"
    what = WORDS.get(found.waits_for, found.waits_for)
    since = f" since {day_and_time(found.since)}" if found.since else ""
    return f"{found.order_id} is {found.status}: it waits for {what}{since}"

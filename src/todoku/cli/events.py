"""`todoku events`: export and follow the events of all orders."""

import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from todoku.cli.client import client
from todoku.cli.errors import CommandFailed
from todoku.cli.event_feed import (
    RESTARTED,
    FeedPage,
    Wanted,
    choose,
    decode_event,
    follow,
    read_all,
)
from todoku.cli.event_file import EventFile
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Addresses, settings_to_reach
from todoku.cli.formatting import counted, day_and_time, printable
from todoku.cli.options import JsonLines, Texts, Url
from todoku.cli.output import console, note
from todoku.settings import Settings

Read = Callable[[dict[str, object]], Iterator[FeedPage]]

events = App(name="events", help="Export and follow the events of all orders.")

Types = Annotated[
    Texts,
    Parameter(
        "--type", help="Only events of this type, such as OrderCompletedEvent; may be repeated."
    ),
]
Orders = Annotated[Texts, Parameter("--order", help="Only events of this order; may be repeated.")]
Subjects = Annotated[
    Texts,
    Parameter(
        "--subject",
        help="Only events on this subject: inventory.reserved, or a pattern such as 'shipping.>'; may be"
        " repeated.",
    ),
]
Since = Annotated[
    str | None,
    Parameter(
        show_default=False,
        help="Only events recorded at this time or later, as in 2030-01-02T03:04:05Z.",
    ),
]
After = Annotated[
    str | None,
    Parameter(
        show_default=False, help="Go on behind this cursor, which an earlier run has printed."
    ),
]


@events.command
def export(
    *,
    type: Types = (),
    order: Orders = (),
    subject: Subjects = (),
    since: Since = None,
    after: After = None,
    output: Annotated[Path | None, Parameter(show_default=False)] = None,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Print the events of all orders up to now, one JSON object per line.

    That is what other commands print with --json. The events are those of the
    orders' histories, in the order in which they were recorded. The last line on
    stderr is the cursor to go on with. With --output, it is stored in FILE.cursor,
    and the same command goes on where it stopped, also if it was killed.

    For example:

        todoku events export > events.ndjson
        todoku events export --output events.ndjson
        todoku events export --type OrderCompletedEvent --since 2030-01-01T00:00:00Z
        todoku events export | jq -r '[.orderId, .type, .status] | @tsv'

    Parameters
    ----------
    output
        The file to which events are appended.
    """
    settings = settings_to_reach(addresses).settings
    wanted = _wanted(type, order, subject, since, settings)
    orders = client("orders", url, settings)
    if output is not None:
        if after is not None:
            raise CommandFailed(
                "--output goes on where its file ends: leave out --after.",
                exit_code=ExitCode.USAGE,
            )
        _export_to_file(output, wanted, lambda query: read_all(orders, query))
        return
    count, cursor = 0, after
    for page in read_all(orders, _beginning(wanted, after)):
        found = choose(page, wanted)
        _write(found)
        count, cursor = count + len(found), page.next
    note(f"{counted(count, 'event')}; go on with --after {cursor}")


@events.command
def tail(
    *,
    type: Types = (),
    order: Orders = (),
    subject: Subjects = (),
    since: Since = None,
    after: After = None,
    json: JsonLines = False,
    url: Url = None,
    addresses: Addresses = None,
) -> None:
    """Print the events of all orders as they are recorded.

    It begins now, or with --since or --after earlier. While the service is
    unavailable, it waits.

    For example:

        todoku events tail
        todoku events tail --subject 'shipping.>'
        todoku events tail --json --type OrderCompletedEvent | jq .data.totalAmount
    """
    settings = settings_to_reach(addresses).settings
    wanted = _wanted(type, order, subject, since, settings)
    orders = client("orders", url, settings)
    beginning = _beginning(wanted, after) or {"start": "end"}
    cursor = after
    try:
        for page in follow(orders, beginning):
            found = choose(page, wanted)
            _write(found) if json else _print(found)
            cursor = page.next
    except KeyboardInterrupt:
        if cursor is not None:
            note(f"go on with --after {cursor}")
        raise


def _export_to_file(path: Path, wanted: Wanted, read: Read) -> None:
    with EventFile(path) as file:
        count = 0
        try:
            for page in read(_beginning(wanted, file.after)):
                found = choose(page, wanted)
                file.append(found, page.next)
                count += len(found)
        except CommandFailed as failure:
            if failure.problem != RESTARTED:
                raise
            raise CommandFailed(
                f"{failure}\nRemove {path} and {path}.cursor, and export again.",
                exit_code=failure.exit_code,
            ) from failure
    note(f"{counted(count, 'event')} appended to {path}")


def _wanted(
    types: tuple[str, ...],
    orders: tuple[str, ...],
    subjects: tuple[str, ...],
    since: str | None,
    settings: Settings,
) -> Wanted:
    return Wanted(
        types=frozenset(types),
        orders=frozenset(each.lower() for each in orders),
        subjects=subjects,
        since=None if since is None else _instant(since),
        subject_of=_subjects(settings) if subjects else {},
    )


def _subjects(settings: Settings) -> dict[str, str]:
    """Return the subject of each type of events."""
    from todoku.system import load_system

    return {kind.__name__: kind.subject for kind in load_system(settings).examples()}


def _instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise _no_time(text) from None
    if instant.tzinfo is None:
        raise _no_time(text)
    return instant


def _no_time(text: str) -> CommandFailed:
    return CommandFailed(
        f"{text!r} is not a time with an offset: write it as in 2030-01-02T03:04:05Z.",
        exit_code=ExitCode.USAGE,
    )


def _beginning(wanted: Wanted, after: str | None) -> dict[str, object]:
    """Return the parameters of the first request."""
    if after is not None:
        return {"after": after}
    return {} if wanted.since is None else {"since": wanted.since.isoformat()}


def _write(found: list[bytes]) -> None:
    if found:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\n".join(found) + b"\n")
        sys.stdout.flush()


def _print(found: list[bytes]) -> None:
    out = console()
    for raw in found:
        event = decode_event(raw)
        when = day_and_time(event.recorded_at)
        out.print(printable(f"{when}  {event.order_id}  {event.type}  {event.status}"))

"""`todoku logs`: show what the programs of `up` have logged."""

from typing import Annotated

from cyclopts import Parameter

from todoku.cli.client import segment
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.formatting import printable
from todoku.cli.options import ItemsMax
from todoku.cli.output import note
from todoku.local.log_files import FOLDER, LogLine, about, read_lines
from todoku.system import load_system

BROKER = "broker"
LINES = 1_000
NAME_WIDTH = 9


def logs(
    *,
    order: Annotated[str | None, Parameter(show_default=False)] = None,
    service: Annotated[str | None, Parameter(show_default=False)] = None,
    limit: ItemsMax = LINES,
    flags: Flags = None,
) -> ExitCode:
    """Show what the services of `todoku up` have logged, in the order of time.

    The files are in the folder `logs` of the data folder. An order that is
    processed without a problem leaves no line.

    For example:

        todoku logs
        todoku logs --order 0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e
        todoku logs --service shipping --limit 20

    Parameters
    ----------
    order
        Only the lines about this order, of all services, and those in its trace.
    service
        Only the lines of this service, or of the `broker`.
    limit
        The maximum number of lines: the newest.
    """
    settings = settings_from(flags).settings
    programs = (*load_system(settings).names, BROKER)
    if service is not None and service not in programs:
        raise CommandFailed(
            f"{service!r} is no program of this system: it has {', '.join(programs)}.",
            exit_code=ExitCode.USAGE,
        )
    if order is not None:
        segment(order)  # Refuses an empty one, which every line has.
    chosen = programs if service is None else (service,)
    lines = read_lines(settings.data_dir, chosen)
    found = list(lines if order is None else about(lines, order.lower()))
    for line in found[-limit:]:
        print(_shown(line))
    if not found:
        what = "no line" if order is None else f"no line about {printable(order)}"
        note(f"{what} in {settings.data_dir / FOLDER}")
    return ExitCode.OK


def _shown(line: LogLine) -> str:
    first, *rest = line.text.splitlines()
    return "\n".join([f"{line.program:<{NAME_WIDTH}} | {printable(first)}", *map(printable, rest)])

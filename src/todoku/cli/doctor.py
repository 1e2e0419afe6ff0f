"""`todoku doctor`: diagnose problems and suggest fixes."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from todoku.cli.checks import CheckResult, CheckStatus
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.formatting import counted, printable
from todoku.cli.options import Json
from todoku.cli.output import console, note, suggest, write_object
from todoku.cli.streams import to_json
from todoku.settings import Settings

STYLES = {
    CheckStatus.OK: "green",
    CheckStatus.WARNING: "bold yellow",
    CheckStatus.WRONG: "bold red",
}


def doctor(*, json: Json = False, flags: Flags = None) -> ExitCode:
    """Diagnose problems and suggest fixes.

    Checks versions, the data folder and its disk, the clocks, the ports, the
    broker and the databases, whether Todoku runs or not. Changes nothing. Exits
    with 1 if something is wrong, but not for warnings.

    For example:

        todoku doctor
        todoku doctor --nats-url nats://broker.example:4222
        todoku doctor --json | jq '.checks[] | select(.verdict != "ok")'
    """
    results = list(examine(settings_from(flags).settings))
    worst = _worst(results)
    if json:
        write_object(to_json({"verdict": worst, "checks": results}))
    else:
        console().print(_table(results))
        note(_summary(results))
        if worst is CheckStatus.OK:
            suggest("todoku verify", "check the databases for broken invariants")
    return ExitCode.FAILED if worst is CheckStatus.WRONG else ExitCode.OK


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Run every check, each after those that it depends on."""
    # Imported here: the checks take a noticeable time to import.
    from todoku.cli.checks import databases, machine, network

    running = network.find_services(settings)
    yield from machine.versions(settings)
    yield from machine.disk(settings)
    yield from machine.clock(settings)
    yield from network.clocks(running)
    yield from network.ports(settings, running)
    yield from network.broker(settings, running=bool(running))
    yield from databases.databases(settings, running)


def _worst(results: Sequence[CheckResult]) -> CheckStatus:
    order = list(CheckStatus)
    return max((result.verdict for result in results), key=order.index)


def _table(results: Sequence[CheckResult]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for result in results:
        text = Text(printable(result.found))
        if result.fix:
            text.append(f"\n→ {printable(result.fix)}", STYLES[result.verdict])
        grid.add_row(Text(result.verdict, STYLES[result.verdict]), result.check, text)
    return grid


def _summary(results: Sequence[CheckResult]) -> str:
    wrong, warnings = (
        sum(result.verdict is verdict for result in results)
        for verdict in (CheckStatus.WRONG, CheckStatus.WARNING)
    )
    if not wrong and not warnings:
        return f"{counted(len(results), 'check')}, no problems found"
    return f"{counted(len(results), 'check')}: {counted(wrong, 'error')}, {counted(warnings, 'warning')}"

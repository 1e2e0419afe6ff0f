"""`todoku doctor`: diagnose problems and suggest fixes."""

from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_of_running
from todoku.cli.formatting import counted, printable
from todoku.cli.options import Json
from todoku.cli.output import console, note, suggest, write_object
from todoku.cli.streams import to_json
from todoku.diagnosis import CheckResult, CheckStatus, ok, warning
from todoku.local.running import RunningUp
from todoku.redaction import HIDDEN
from todoku.settings import Loaded, Settings, values_of, variable_of

STYLES = {
    CheckStatus.OK: "green",
    CheckStatus.WARNING: "bold yellow",
    CheckStatus.WRONG: "bold red",
}


def doctor(*, json: Json = False, flags: Flags = None) -> ExitCode:
    """Diagnose problems and suggest fixes.

    Checks versions, the data folder and its disk, the clocks, the ports, the
    broker, the databases and what is paused, whether Todoku runs or not, and
    what the running services contribute, such as the carrier. Changes nothing.
    If `todoku up` runs on the data folder, its settings are used. Exits with 1
    if something is wrong, but not for warnings.

    For example:

        todoku doctor
        todoku doctor --nats-url nats://broker.example:4222
        todoku doctor --json | jq '.checks[] | select(.verdict != "ok")'
    """
    loaded, up = settings_of_running(flags)
    results = [*_settings(loaded, up), *examine(loaded.settings, up)]
    worst = _worst(results)
    if json:
        write_object(to_json({"verdict": worst, "checks": results}))
    else:
        console().print(_table(results))
        note(_summary(results))
        if worst is CheckStatus.OK:
            suggest("todoku verify", "check the databases for broken invariants")
    return ExitCode.FAILED if worst is CheckStatus.WRONG else ExitCode.OK


def _settings(loaded: Loaded, up: RunningUp | None) -> Iterator[CheckResult]:
    """Report that the settings are those of the running system, and which secrets are unknown here."""
    if up is None:
        return
    found = f"those of the running `todoku up` {up.version} (process {up.pid})"
    hidden = [name for name, value in values_of(loaded.settings).items() if HIDDEN in str(value)]
    if hidden:
        variables = " and ".join(map(variable_of, hidden))
        yield warning("settings", f"{found}, without its secrets", fix=f"set {variables} here too")
    else:
        yield ok("settings", found)


def examine(settings: Settings, up: RunningUp | None) -> Iterator[CheckResult]:
    """Run every check, each after those that it depends on."""
    # Imported here: the checks take a noticeable time to import.
    from todoku.cli.checks import console as console_check
    from todoku.cli.checks import contributed, databases, exposure, machine, network, pauses

    running = network.find_services(settings)
    pid = None if up is None else up.pid
    yield from machine.versions(settings)
    yield from machine.disk(settings)
    yield from machine.clock(settings)
    yield from network.clocks(running)
    yield from network.ports(settings, running, up=pid)
    yield from console_check.console(settings)
    yield from exposure.exposure(settings)
    yield from exposure.issuer(settings)
    yield from network.broker(settings, running=bool(running), up=pid)
    yield from databases.databases(settings, running)
    yield from pauses.pauses(settings)
    ready = {name for name, found in running.items() if not found.not_ready}
    yield from contributed.services(settings, ready)


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

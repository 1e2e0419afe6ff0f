"""`todoku doctor`: looks for what keeps Todoku from working here, and says what to do."""

from collections.abc import Iterator, Sequence

import msgspec
from rich.table import Table
from rich.text import Text

from todoku.cli.checks import Finding, Verdict
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import Flags, settings_from
from todoku.cli.options import Json
from todoku.cli.output import console, say, suggest, write_object
from todoku.cli.words import printable
from todoku.settings import Settings

STYLES = {Verdict.OK: "green", Verdict.WARNING: "bold yellow", Verdict.WRONG: "bold red"}


def doctor(*, json: Json = False, flags: Flags = None) -> ExitCode:
    """Look for what keeps Todoku from working here, and say what to do.

    Looks at versions, the data folder and its disk, the clocks, the ports, the
    broker and the databases, and changes nothing. Works while Todoku runs and while
    it does not. Exit code 1 if something is wrong; warnings leave it 0.

    For example:

        todoku doctor
        todoku doctor --nats-url nats://broker.example:4222
        todoku doctor --json | jq '.checks[] | select(.verdict != "ok")'
    """
    findings = list(examine(settings_from(flags).settings))
    worst = _worst(findings)
    if json:
        write_object(msgspec.json.encode({"verdict": worst, "checks": findings}))
    else:
        console().print(_drawn(findings))
        say(_summary(findings))
        if worst is Verdict.OK:
            suggest("todoku verify", "hold the databases against the promise")
    return ExitCode.FAILED if worst is Verdict.WRONG else ExitCode.OK


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which one thing stands on another."""
    # What is looked at takes a moment to import: not before somebody wants it.
    from todoku.cli.checks import databases, machine, network

    present = network.find_services(settings)
    yield from machine.versions(settings)
    yield from machine.disk(settings)
    yield from machine.clock(settings)
    yield from network.clocks(present)
    yield from network.ports(settings, present)
    yield from network.broker(settings, running=bool(present))
    yield from databases.databases(settings, present)


def _worst(findings: Sequence[Finding]) -> Verdict:
    order = list(Verdict)
    return max((finding.verdict for finding in findings), key=order.index)


def _drawn(findings: Sequence[Finding]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(2):
        grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        told = Text(printable(finding.found))
        if finding.fix:
            told.append(f"\n→ {printable(finding.fix)}", STYLES[finding.verdict])
        grid.add_row(Text(finding.verdict, STYLES[finding.verdict]), finding.check, told)
    return grid


def _summary(findings: Sequence[Finding]) -> str:
    wrong, warnings = (
        sum(finding.verdict is verdict for finding in findings)
        for verdict in (Verdict.WRONG, Verdict.WARNING)
    )
    if not wrong and not warnings:
        return f"{len(findings)} checks, all well"
    return f"{len(findings)} checks: {wrong} wrong, {warnings} warning{'s' * (warnings != 1)}"

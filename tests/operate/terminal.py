"""Break running systems in most ways of docs/reliability.md, and find the cause and the cure with
`todoku order why` and `todoku doctor` only.

make operate-terminal
make operate-terminal ARGS="'dead letter' 'disk full'"
"""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from faults.postgres import BIN
from operate.cases import CASES, RELEASE, Case
from operate.planted import PLAIN, POSTGRESQL, SMALL_DISK, System
from operate.systems import started
from todoku.lab.stack import TODOKU

PATIENCE_SECONDS: Final = 150.0
PAUSE_SECONDS: Final = 0.5
OF_THE_MACHINE: Final = ("disk sync", "clock")
"""Checks of the machine, which may be busy with something else."""

CONSEQUENCE: Final = "not yet confirmed by"
"""What `doctor` also says where something has lasted for a minute."""

HEADINGS: Final = (
    "case",
    "`todoku order why ID`",
    "`todoku doctor`",
    "cure",
    "seconds until cured",
)


class Said(NamedTuple):
    """What the two commands have printed: `problems` are the checks of doctor that are not ok."""

    why: str
    problems: Mapping[str, str]

    @property
    def all(self) -> str:
        """Everything, to look for commands in."""
        return "\n".join((self.why, *self.problems.values()))


def todoku(system: System, *words: str) -> str:
    """Run a command as somebody does who knows where the data folder is, and no port."""
    environment = {name: value for name, value in os.environ.items() if "TODOKU_" not in name}
    environment["TODOKU_DATA_DIR"] = str(system.data_dir)
    ended = subprocess.run(
        [*TODOKU, *words], env=environment, capture_output=True, text=True, check=False
    )
    return ended.stdout or ended.stderr


def ask(system: System, order: str, usual: Mapping[str, str]) -> Said:
    """Ask both commands; leave out what doctor always says of this system."""
    with ThreadPoolExecutor(2) as pool:
        doctor = pool.submit(todoku, system, "doctor", "--json")
        why = pool.submit(todoku, system, "order", "why", order) if order else None
    found = json.loads(doctor.result())["checks"]
    problems = {
        each["check"]: f"{each['found']} → {each['fix']}"
        for each in found
        if each["verdict"] != "ok" and f"{each['found']} → {each['fix']}" not in usual.values()
    }
    return Said(why.result() if why else "", problems)


def is_right(case: Case, said: Said) -> bool:
    """Return whether both commands say what is wrong, and doctor nothing else."""
    others = {
        check
        for check, text in said.problems.items()
        if check not in case.doctor and check not in OF_THE_MACHINE and CONSEQUENCE not in text
    }
    return (
        all(re.search(wanted, said.why) for wanted in case.why)
        and all(
            re.search(wanted, said.problems.get(check, "")) for check, wanted in case.doctor.items()
        )
        and not others
    )


def until(look: Callable[[], Said], holds: Callable[[Said], bool]) -> Said:
    """Look again and again until it is so. Raises `TimeoutError` with what was said last."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds(said := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{said.why}\n{said.problems}")
        time.sleep(PAUSE_SECONDS)
    return said


def meet(case: Case, system: System) -> list[str]:
    """Plant a case, find it, cure it, and wait until doctor finds nothing and the order has ended; return
    the cells of its row."""
    order = system.place_held() if case.is_held else ""
    usual = ask(system, order, {}).problems
    with case.planted(system):
        order = order or case.place(system)

        def look() -> Said:
            # Where it passes by itself, an order that was placed before may have ended.
            return ask(system, case.place(system) if case.passes else order, usual)

        said = until(look, lambda said: is_right(case, said))
    command = ""
    if case.cure:
        (command, *_) = re.findall(case.cure, said.all)
        execute(system, command.strip("`"))
    began = time.monotonic()

    def is_cured(now: Said) -> bool:
        if release := re.search(RELEASE, now.why):
            execute(system, release.group())
        return "It has ended (COMPLETED)" in now.why and not set(now.problems) - {*OF_THE_MACHINE}

    until(lambda: ask(system, order, usual), is_cured)
    seconds = time.monotonic() - began
    found = "; ".join(f"{check}: {shown(said, text)}" for check, text in said.problems.items())
    (first, *_) = re.findall(f".*{case.why[0]}.*", said.why)
    cure = f"`{shortened(command)}`" if command else case.remedy
    return [case.name, shortened(first), found or "no problems found", cure, f"{seconds:.0f}"]


def execute(system: System, command: str) -> None:
    """Run a command that was printed."""
    words = shlex.split(command.replace("QUANTITY", "5"))
    if words[0] == "todoku":
        todoku(system, *words[1:])
    else:
        subprocess.run(words, check=True)


def shown(said: Said, text: str) -> str:
    """Return what a check has found, without what is the same for each database."""
    return shortened(re.sub(r"^\S+, version \d+, used by [^;]*; ", "", text.partition(" → ")[0]))


def shortened(text: str) -> str:
    """Return a text without what is different in each run."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    text = re.sub(r"since [0-9-]+ [0-9:]+ UTC", "since …", text)
    text = re.sub(r"\d{4}-\d\d-\d\d [0-9:]+ UTC", "…", text)
    text = re.sub(r"/tmp/\w+/", "", text)
    text = re.sub(r"\b\d{5}, (?=served|\w+ does not|the broker)", "", text)
    text = re.sub(r"(process |-CONT |127\.0\.0\.1:)\d+", r"\1N", text)
    return text.replace("|", "\\|")


def print_row(cells: list[str] | tuple[str, ...]) -> None:
    """Print a row of a Markdown table."""
    print(f"| {' | '.join(cells)} |", flush=True)


def can_run(case: Case) -> bool:
    """Return whether a case can be shown here; say why not."""
    reason = {
        SMALL_DISK: "only root may mount a small disk" if os.geteuid() else "",
        POSTGRESQL: "it needs root and Debian's package postgresql"
        if os.geteuid() or BIN is None
        else "",
    }.get(case.system, "")
    if reason:
        print(f"{case.name}: skipped, {reason}", file=sys.stderr)
    return not reason


def main() -> int:
    """Meet the cases one after the other, and print a table; return 1 if a command was wrong."""
    names = [case.name for case in CASES]
    options = ArgumentParser(description=__doc__.partition("\n\n")[0])
    options.add_argument("cases", nargs="*", metavar="case", help=", ".join(names))
    given = options.parse_args()
    if unknown := set(given.cases).difference(names):
        options.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(names)}")
    chosen = [case for case in CASES if not given.cases or case.name in given.cases]
    print_row(HEADINGS)
    print_row(["---"] * len(HEADINGS))
    failed = False
    for kind, cases in itertools.groupby(filter(can_run, chosen), key=lambda case: case.system):
        with started(kind) as system:
            for case in cases:
                try:
                    print_row(meet(case, system))
                except TimeoutError as error:
                    print(f"WRONG: {case.name}: {error}", file=sys.stderr, flush=True)
                    failed = True
                    if kind == PLAIN:
                        system.stack.kill_up()
                        system.stack.start()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

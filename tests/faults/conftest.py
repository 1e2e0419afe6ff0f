"""What the tests of faults share: a stack under load, its judgement, and the table at the end."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from todoku.lab.chaos import OrderLoad, Verdict, judge, prepare_products
from todoku.lab.stack import Stack, isolated_settings

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # it looks into /proc and holds on to kernel interfaces

REPORT = "faults"


@pytest.fixture(autouse=True, scope="session")
def clean_up_when_terminated() -> Iterator[None]:
    """Who ends the tests with SIGTERM finds no process, mount or loop device left either."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


class Prove(Protocol):
    """Wait until all has settled, and hold it against the promise."""

    def __call__(
        self,
        stack: Stack,
        load: OrderLoad,
        *,
        injected: int,
        within_seconds: float = 60.0,
        note: str = "",
    ) -> Verdict: ...


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Makes a stack with these settings, not yet started; at the end nothing of it runs."""
    made: list[Stack] = []

    def make(data_dir: Path | None = None, **settings: Any) -> Stack:
        chosen = isolated_settings(data_dir or tmp_path / "data", **settings)
        stack = Stack(chosen, tmp_path / "log")
        made.append(stack)
        return stack

    yield make
    for stack in made:
        stack.kill_up()


@pytest.fixture
def stack(make_stack: Callable[..., Stack]) -> Stack:
    """A stack that runs and has products."""
    stack = make_stack()
    stack.start()
    prepare_products(stack)
    return stack


@pytest.fixture
def prove(request: pytest.FixtureRequest) -> Prove:
    """Judges, and notes for the table what was broken how often and what became of it."""

    def prove(
        stack: Stack,
        load: OrderLoad,
        *,
        injected: int,
        within_seconds: float = 60.0,
        note: str = "",
    ) -> Verdict:
        verdict = judge(stack.settings, load, within_seconds=within_seconds)
        request.node.user_properties.append((REPORT, _row(request, verdict, injected, note)))
        assert verdict.kept, "\n".join([*verdict.broken[:20], str(load), f"log: {stack.log}"])
        return verdict

    return prove


def _row(request: pytest.FixtureRequest, verdict: Verdict, injected: int, note: str) -> str:
    orders = ", ".join(f"{count} {status}" for status, count in verdict.orders.items())
    name = request.node.name.removeprefix("test_").replace("_", " ")
    settled = f"{verdict.settled_seconds} s" if verdict.settled_seconds is not None else "never"
    kept = "kept" if verdict.kept else f"BROKEN: {verdict.broken[0]}"
    return f"| {name} | {injected} | {verdict.accepted} | {orders} | {settled} | {kept} | {note} |"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: fault → what happened → invariants."""
    rows = [
        row
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for key, row in report.user_properties
        if key == REPORT and report.when == "call"
    ]
    if rows:
        terminalreporter.section("faults")
        terminalreporter.write_line(
            "| fault | injected | accepted | ended | settled after | I1–I5 | note |\n"
            "|---|---|---|---|---|---|---|\n" + "\n".join(rows)
        )

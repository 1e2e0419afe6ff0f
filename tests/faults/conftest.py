"""Provide a stack under load, the check of its invariants, and the table at the end."""

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from todoku.lab.chaos import OrderLoad, Verdict, judge, prepare_products
from todoku.lab.stack import Stack, isolated_settings

if sys.platform != "linux":
    collect_ignore_glob = ["test_*.py"]  # they use /proc and other interfaces of Linux

REPORT = "faults"


@pytest.fixture(autouse=True, scope="session")
def clean_up_when_terminated() -> Iterator[None]:
    """Turn SIGTERM into KeyboardInterrupt, so that no process, mount or loop device is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


class Prove(Protocol):
    """Wait until the system is quiescent, and check the invariants."""

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
    """Create stacks with given settings, not yet started; kill them at the end."""
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
    """Start a stack and add products."""
    stack = make_stack()
    stack.start()
    prepare_products(stack)
    return stack


@pytest.fixture
def prove(request: pytest.FixtureRequest) -> Prove:
    """Check the invariants, and add a row to the table: fault, count, outcome."""

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
    """Print the table: fault → what happened → invariants."""
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

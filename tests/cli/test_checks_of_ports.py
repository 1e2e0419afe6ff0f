"""What `todoku doctor` says of services that do not work."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from todoku.cli.checks import network
from todoku.cli.checks.network import RunningService
from todoku.diagnosis import CheckResult, CheckStatus
from todoku.lab.stack import isolated_settings

WORKS = RunningService("1.0.0", 0.0)
LOCKED = RunningService("1.0.0", not_ready="The database accepts no writes at present")
OTHERS = {"orders": WORKS, "inventory": WORKS}


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., Mapping[str, CheckResult]]:
    """Checks the ports of a system in a folder of its own."""
    settings = isolated_settings(tmp_path)

    def check(
        running: Mapping[str, RunningService], up: int | None = None
    ) -> Mapping[str, CheckResult]:
        return {result.check: result for result in network.ports(settings, running, up=up)}

    return check


def test_service_that_has_ended_is_restarted_by_up(
    found: Callable[..., Mapping[str, CheckResult]],
) -> None:
    result = found(OTHERS, up=os.getpid())["shipping port"]
    assert result.verdict is CheckStatus.WRONG
    assert "nothing listens at http://127.0.0.1:" in result.found
    assert result.fix.startswith(f"wait: `todoku up` (process {os.getpid()}) restarts it")


def test_up_that_is_stopped_has_to_be_continued(
    found: Callable[..., Mapping[str, CheckResult]],
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as up:
        up.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, up.pid, os.WSTOPPED | os.WNOWAIT)
        result = found(OTHERS, up=up.pid)["shipping port"]
        up.kill()
    assert f"`todoku up` is stopped (process {up.pid})" in result.found
    assert f"`kill -CONT {up.pid}`" in result.fix


def test_service_that_is_absent_here_is_a_warning_where_others_run(
    found: Callable[..., Mapping[str, CheckResult]],
) -> None:
    """It may run on another machine."""
    result = found(OTHERS)["shipping port"]
    assert result.verdict is CheckStatus.WARNING
    assert "`todoku run shipping`" in result.fix


def test_system_that_does_not_run_is_a_warning_once_it_has_run(
    found: Callable[..., Mapping[str, CheckResult]], tmp_path: Path
) -> None:
    assert "services" not in found({})
    (tmp_path / "orders.db").touch()
    assert found({})["services"].verdict is CheckStatus.WARNING
    assert "`todoku up`" in found({})["services"].fix


def test_service_that_is_not_ready_is_wrong_and_says_why(
    found: Callable[..., Mapping[str, CheckResult]],
) -> None:
    result = found(OTHERS | {"shipping": LOCKED})["shipping port"]
    assert result.verdict is CheckStatus.WRONG
    assert result.found.endswith("not ready: The database accepts no writes at present")
    assert result.fix == "see the log of shipping"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="Linux tells who holds a lock")
def test_program_that_has_locked_the_database_is_named(
    found: Callable[..., Mapping[str, CheckResult]], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "shipping.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        result = found(OTHERS | {"shipping": LOCKED})["shipping port"]
    assert f"process {os.getpid()}" in result.fix
    assert f"`kill {os.getpid()}`" in result.fix

"""Tests of `todoku chaos`."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from todoku.cli.exit_codes import ExitCode
from todoku.lab.chaos.faults import FAULTS


def chaos(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "todoku", "chaos", *flags], capture_output=True, text=True
    )


@pytest.mark.faults
def test_every_fault_is_injected_in_one_run(tmp_path: Path) -> None:
    """No invariant is broken, each fault was injected, and the report is JSON."""
    told = chaos("--seconds", "60", "--seed", "1", "--data-dir", str(tmp_path / "data"), "--json")

    assert told.returncode == ExitCode.OK, told.stdout + told.stderr
    outcome = msgspec.json.decode(told.stdout)
    assert outcome["faults"].keys() == FAULTS.keys()
    assert sum(outcome["faults"].values()) >= len(FAULTS)
    assert outcome["broken"] == []
    assert sum(outcome["verdict"]["orders"].values()) >= outcome["verdict"]["accepted"] > 0


@pytest.mark.faults
def test_second_run_continues_with_the_data(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    for _ in range(2):
        told = chaos("--seconds", "1", "--data-dir", data)

        assert told.returncode == ExitCode.OK, told.stdout + told.stderr
        assert "clean: no invariant is broken" in told.stdout
        assert all(name in told.stdout for name in FAULTS)


@pytest.mark.faults
def test_shelves_run_short_and_a_copier_is_killed() -> None:
    """Staff restock, orders wait for stock and are held, and the copy of the feed is exact."""
    told = chaos(
        *("--seconds", "20", "--seed", "1", "--restocks", "--copier-kills", "3", "--json"),
        *("--fault", "service killed", "--fault", "carrier paused"),
    )

    assert told.returncode == ExitCode.OK, told.stdout + told.stderr
    outcome = msgspec.json.decode(told.stdout)
    assert outcome["restocked"] > 0
    assert outcome["copierKilled"] == 3
    assert outcome["copy"] == []


@pytest.mark.parametrize("flags", [("--seconds", "-1"), ("--orders-per-second", "0")])
def test_impossible_options_are_refused(flags: tuple[str, ...]) -> None:
    told = chaos(*flags)

    assert told.returncode == ExitCode.USAGE


def test_system_that_cannot_start_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    told = chaos("--data-dir", str(tmp_path / "file"))

    assert told.returncode == ExitCode.CANNOT_START
    assert "the system did not start: todoku: the data folder" in told.stderr

"""`todoku bench` as a user runs it, and the folder that is filled for it."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from todoku.bench.fill import fill
from todoku.bench.promise import broken_promises
from todoku.cli.exit_codes import ExitCode
from todoku.settings import Settings


def bench(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "todoku", "bench", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_bench_of_its_own_sees_every_order_to_its_end_and_breaks_no_promise(
    tmp_path: Path,
) -> None:
    """An order is 4 messages in the stream, and nothing is sent again."""
    load = ("--orders", "40", "--connections", "8", "--stages")
    answer = bench(tmp_path, *load, "--json", "--plot", "x.svg")

    assert answer.returncode == ExitCode.OK, answer.stderr
    report = json.loads(answer.stdout)
    assert report["endings"] == {"COMPLETED": 40}
    assert report["unfinished"] == 0
    assert report["broken"] == []
    assert report["traffic"]["messages"] == 4
    assert report["traffic"]["repeated"] == 0
    assert report["post"]["count"] == report["ended"]["count"] == 40
    for service, stages in report["stages"].items():
        assert stages["saving"] > 0
        assert sum(stages.values()) == pytest.approx(report["costs"][service]["cpuMs"])
    ElementTree.parse(tmp_path / "x.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]


def test_an_order_that_does_not_end_in_time_makes_it_fail(tmp_path: Path) -> None:
    flags = ("--carrier-delay-seconds", "300", "--patience-seconds", "0.1", "--skip-verify")
    answer = bench(tmp_path, "--orders", "5", *flags, "--json")

    assert answer.returncode == ExitCode.FAILED, answer.stderr
    assert json.loads(answer.stdout)["unfinished"] == 5


@pytest.mark.parametrize(
    "arguments", [("--connections", "0"), ("--rate", "-1"), ("--items", "3", "--products", "2")]
)
def test_a_load_that_makes_no_sense_is_a_usage_error(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    answer = bench(tmp_path, *arguments)

    assert answer.returncode == ExitCode.USAGE
    assert answer.stdout == ""


def test_what_is_filled_in_keeps_every_promise(tmp_path: Path) -> None:
    told: list[int] = []
    fill(tmp_path, 700, 30, told=told.append)

    assert told == [500, 700]
    assert broken_promises(Settings(data_dir=tmp_path), overdue_seconds=1) == ()

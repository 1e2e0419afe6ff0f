"""`todoku bench` as a user runs it, and the folder that is filled for it."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from todoku.bench.fill import fill
from todoku.bench.promise import broken_promises
from todoku.bench.reads import READS
from todoku.cli.exit_codes import ExitCode
from todoku.settings import SERVICES, Settings


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


def test_fsyncs_are_counted_of_every_process_that_keeps_something(tmp_path: Path) -> None:
    answer = bench(tmp_path, "--orders", "20", "--fsyncs", "--skip-verify", "--json")
    if "can be counted" in answer.stderr or "cannot be counted" in answer.stderr:
        pytest.skip(answer.stderr)

    assert answer.returncode == ExitCode.OK, answer.stderr
    costs = json.loads(answer.stdout)["costs"]
    assert all(0 < costs[name]["fsyncs"] <= costs[name]["commits"] for name in SERVICES)
    assert costs["broker"]["fsyncs"] > 0


def test_an_order_that_does_not_end_in_time_makes_it_fail(tmp_path: Path) -> None:
    flags = ("--carrier-delay-seconds", "300", "--patience-seconds", "0.1", "--skip-verify")
    answer = bench(tmp_path, "--orders", "5", *flags, "--json")

    assert answer.returncode == ExitCode.FAILED, answer.stderr
    assert json.loads(answer.stdout)["unfinished"] == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ("--connections", "0"),
        ("--rate", "-1"),
        ("--items", "3", "--products", "2"),
        ("--reads", "0"),
        ("--cold",),
        ("--running", "--fsyncs"),
    ],
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


@pytest.mark.parametrize("cold", [(), ("--cold",)])
def test_reading_is_timed_for_each_thing_and_each_list(
    cold: tuple[str, ...], tmp_path: Path
) -> None:
    fill(tmp_path / "data", 20, 30)
    answer = bench(tmp_path, "--reads", "3", *cold, "--data-dir", "data", "--json")

    assert answer.returncode == ExitCode.OK, answer.stderr
    report = json.loads(answer.stdout)
    assert report["orders"] == 20
    assert report["cold"] is bool(cold)
    assert {latency["count"] for latency in report["latencies"].values()} == {3}
    assert set(report["latencies"]) == set(READS)


def test_without_orders_there_is_nothing_to_read(tmp_path: Path) -> None:
    answer = bench(tmp_path, "--reads", "3")

    assert answer.returncode == ExitCode.FAILED
    assert "todoku.bench.fill" in answer.stderr

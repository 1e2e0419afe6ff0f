"""Tests of `todoku bench`, of its instruments, and of the folder that is filled for it."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from sqlalchemy import func, select

from bench.running import bench, profile
from todoku.cli.exit_codes import ExitCode
from todoku.database.lock import FileLock
from todoku.lab.bench.fill import fill
from todoku.lab.bench.reads import READS
from todoku.lab.databases import audit_all, read_all, violations
from todoku.orders.store import feed, order_events, orders
from todoku.system import system


def test_every_order_ends_and_no_invariant_is_broken(
    tmp_path: Path,
) -> None:
    """An order is 5 messages in the stream, and nothing is sent again."""
    load = ("--orders", "40", "--connections", "8")
    answer = profile(tmp_path, *load, "--stages", "--json", "--plot", "x.svg")

    assert answer.returncode == ExitCode.OK, answer.stderr
    report = json.loads(answer.stdout)
    assert report["endings"] == {"COMPLETED": 40}
    assert report["unfinished"] == 0
    assert report["broken"] == []
    assert report["traffic"]["messages"] == 5
    assert report["traffic"]["repeated"] == 0
    assert report["post"]["count"] == report["ended"]["count"] == 40
    for service, stages in report["stages"].items():
        assert stages["saving"] > 0
        assert sum(stages.values()) == pytest.approx(report["costs"][service]["cpuMs"])
    ElementTree.parse(tmp_path / "x.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]


def test_each_request_has_a_key_where_one_is_required(tmp_path: Path) -> None:
    answer = bench(tmp_path, "--orders", "20", "--auth", "required", "--json")

    assert answer.returncode == ExitCode.OK, answer.stderr
    report = json.loads(answer.stdout)
    assert report["endings"] == {"COMPLETED": 20}
    assert report["refused"] == {}
    assert report["broken"] == []


def test_fsyncs_are_counted_for_every_process_with_data(tmp_path: Path) -> None:
    orders = 20
    answer = profile(tmp_path, "--orders", str(orders), "--fsyncs", "--skip-verify", "--json")
    if "can be counted" in answer.stderr or "cannot be counted" in answer.stderr:
        pytest.skip(answer.stderr)

    assert answer.returncode == ExitCode.OK, answer.stderr
    costs = json.loads(answer.stdout)["costs"]
    # A commit, and one of the housekeeping, may fall between the reading of one counter and of the other.
    between = 2 / orders
    for name in system.names:
        assert 0 < costs[name]["fsyncs"] <= costs[name]["commits"] + between
    assert costs["broker"]["fsyncs"] > 0


def test_order_that_does_not_end_in_time_fails_the_bench(tmp_path: Path) -> None:
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
        ("--running", "--skip-verify"),
        ("--reads", "3", "--hot"),
        ("--rate", "nan"),
        ("--seconds", "inf"),
        ("--plot", "x.svg"),
        ("--replicas", "2"),  # SQLite has one process
        ("--replicas", "0"),
        ("--database-delay", "5"),
        ("--running", "--replicas", "2"),
    ],
)
def test_impossible_load_is_a_usage_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answer = bench(tmp_path, *arguments)

    assert answer.returncode == ExitCode.USAGE
    assert answer.stdout == ""


def test_filled_folder_breaks_no_invariant(tmp_path: Path) -> None:
    told: list[int] = []
    fill(tmp_path, 700, 30, on_progress=told.append)

    assert told == [500, 700]
    assert violations(audit_all(system.settings(data_dir=tmp_path), overdue_seconds=1)) == ()


def test_folder_of_copies_breaks_no_invariant(tmp_path: Path) -> None:
    """Each copy has ids, times and places in the feed of its own."""
    fill(tmp_path, 700, 30, originals=100)

    settings = system.settings(data_dir=tmp_path)
    assert violations(audit_all(settings, overdue_seconds=1)) == ()
    with read_all(settings) as connections:
        found = connections["orders"]
        assert found.scalar(select(func.count()).select_from(orders)) == 700
        now = datetime.now(UTC)
        days = [(now - at).days for at in found.scalars(select(orders.c.created_at))]
        assert len(set(days)) == 7, "the batch of 100 and its copies lie on days of their own"
        events = found.scalar(select(func.count()).select_from(order_events))
        assert found.scalar(select(func.max(feed.table.c.position))) == events
        lengths = found.scalars(select(func.length(feed.table.c.events))).all()
        assert sum(lengths) == 72 * (events or 0) + len(lengths)


def test_open_orders_stay_open(tmp_path: Path) -> None:
    fill(tmp_path, 40, 30, open_share=0.25, originals=20)

    settings = system.settings(data_dir=tmp_path)
    report = audit_all(settings, overdue_seconds=1)
    assert {(f.invariant, f.problem) for f in report.findings} == {
        ("I3", "in PENDING for over 1 s")
    }
    assert len(report.findings) == 10
    assert report.awaited == ()


@pytest.mark.parametrize("cold", [(), ("--cold",)])
def test_reads_measure_each_resource_and_list(cold: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path / "data", 20, 30)
    answer = bench(tmp_path, "--reads", "3", *cold, "--data-dir", "data", "--json")

    assert answer.returncode == ExitCode.OK, answer.stderr
    report = json.loads(answer.stdout)
    assert report["orders"] == 20
    assert report["cold"] is bool(cold)
    assert {latency["count"] for latency in report["latencies"].values()} == {3}
    assert set(report["latencies"]) == set(READS)


@pytest.mark.parametrize("data_dir", [(), ("--data-dir", "typo")])
def test_reads_without_orders_fail(data_dir: tuple[str, ...], tmp_path: Path) -> None:
    answer = bench(tmp_path, "--reads", "3", *data_dir)

    assert answer.returncode == ExitCode.FAILED
    assert "todoku.lab.bench.fill" in answer.stderr
    assert not (tmp_path / "typo").exists()


def test_invalid_arguments_of_fill_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in ((), ("new", "many"), ("new", "0"), ("new", "1", "nan"), (".", "1")):
        answer = subprocess.run(
            [sys.executable, "-m", "todoku.lab.bench.fill", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert answer.returncode == 2
        assert "Traceback" not in answer.stderr
    assert not (tmp_path / "new").exists()


def begun(folder: Path, *arguments: str) -> "tuple[subprocess.Popen[str], dict[str, int]]":
    """A bench that is under way, and the ids of the processes below it, by name."""
    process = subprocess.Popen(
        [sys.executable, "-m", "todoku", "bench", *arguments],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = {name: pid for pid, name in below(process.pid).items()}
        if len(found) == 2:
            return process, found
        time.sleep(0.02)
    process.kill()
    raise TimeoutError("the load did not begin")


def below(pid: int) -> dict[int, str]:
    """The children of a process: `up`, and the client once it has begun."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
        if "todoku.lab.bench.load" in words or "up" in words:
            found[int(child)] = "load" if "todoku.lab.bench.load" in words else "up"
    return found


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Return whether it has not ended; a zombie has."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@on_linux
def test_killed_bench_leaves_no_process(tmp_path: Path) -> None:
    process, pids = begun(tmp_path, "--orders", "1000000")
    process.kill()
    process.communicate()
    until_gone(pids["load"])
    until_gone(pids["up"])


@on_linux
def test_terminated_bench_leaves_nothing_behind(tmp_path: Path) -> None:
    process, pids = begun(tmp_path, "--orders", "1000000")
    process.terminate()
    out, err = process.communicate(timeout=300)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "Traceback" not in out + err
    until_gone(pids["load"])
    assert list(tmp_path.iterdir()) == []


@on_linux
def test_system_that_dies_under_load_ends_the_bench(tmp_path: Path) -> None:
    process, pids = begun(tmp_path, "--orders", "1000000")
    os.kill(pids["up"], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.CANNOT_START, err
    assert "ended while it was under load" in err


def test_folder_in_use_has_its_own_exit_code(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lock = FileLock(tmp_path / "data" / "up.lock")
    answer = bench(tmp_path, "--orders", "1", "--data-dir", "data")
    lock.release()
    assert answer.returncode == ExitCode.IN_USE, answer.stderr

"""Tests of `todoku simulate`."""

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.simulate import simulate, workers


def test_clean_run_prints_digest(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(seed=1) is ExitCode.OK

    out = capsys.readouterr().out
    assert out.endswith("clean: no invariant was broken\n")
    assert re.search(r"^digest [0-9a-f]{32}$", out, re.MULTILINE)


def test_jobs_do_not_change_results(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(seed=1, seeds=4, jobs=2, json=True)
    together = json.loads(capsys.readouterr().out)
    simulate(seed=1, seeds=4, jobs=1, json=True)
    alone = json.loads(capsys.readouterr().out)

    del together["seconds"], alone["seconds"]
    assert together == alone
    assert together["runs"] == 4
    # A database that was restored may lack an order that was accepted and never published.
    assert 18 <= sum(together["orders"].values()) <= 20


def test_broken_invariant_is_explained_and_repeatable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TODOKU_SYSTEM", "simulation.broken_shop:system")
    assert simulate(seed=2, replicas=1, json=True, shrink_seconds=120) is ExitCode.FAILED
    (explanation,) = json.loads(capsys.readouterr().out)["explanations"]
    only = explanation["again"].split("--only ")[1]
    assert simulate(seed=2, replicas=1, only=only, trace=True) is ExitCode.FAILED

    out = capsys.readouterr().out
    assert explanation["invariant"] == "I5"
    assert explanation["again"].startswith("TODOKU_SYSTEM=simulation.broken_shop:system todoku ")
    assert len(explanation["schedule"]) == 1
    assert any("ShipmentFailedEvent" in line for line in explanation["happened"])
    assert f"seed 2 breaks I5: {explanation['problem']}" in out
    assert out.endswith("1 run broke an invariant: seed 2\n")


def test_what_never_happened_of_the_only_ones_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(seed=1, only="order#1,kil#1") is ExitCode.OK
    assert "1 of --only never happened: kil#1\n" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"orders": 0}, {"trace": True, "seeds": 2}])
def test_invalid_options_are_usage_errors(wrong: dict[str, int]) -> None:
    with pytest.raises(CommandFailed) as refused:
        simulate(**wrong)  # type: ignore[arg-type]

    assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.skipif(sys.platform != "linux", reason="the children are read in /proc")
def test_no_worker_outlives_a_command_that_is_killed() -> None:
    command = [sys.executable, "-m", "todoku", "simulate", "--seeds", "500", "--jobs", "2"]
    # The workers share its output, so that ends when all have ended.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        deadline = time.monotonic() + 60
        while len(children.read_text().split()) < 2:
            assert time.monotonic() < deadline
        running.kill()
        running.communicate(timeout=60)  # 500 runs take minutes.


def test_workers_end_at_once_when_ctrl_c_ends_the_command() -> None:
    with suppress(KeyboardInterrupt), workers(1) as pool:
        pool.submit(signal.pause)  # Would wait for ever.
        raise KeyboardInterrupt

"""`todoku up` keeps everything running, and leaves nothing behind."""

import json
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running import BOUND_SECONDS, Up, up

from todoku.cli.exit_codes import ExitCode
from todoku.settings import SERVICES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PROGRAMS = {"broker", *SERVICES}
FreePorts = Callable[[int], list[int]]


def until_all_ended(pids: list[int]) -> None:
    """Wait until none of these processes is there, whoever's children they are."""
    descriptors = []
    for pid in pids:
        try:
            descriptors.append(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    for descriptor in descriptors:
        ended, _, _ = select.select([descriptor], [], [], BOUND_SECONDS)
        os.close(descriptor)
        assert ended


def everything_answers(running: Up) -> bool:
    return all(running.answers(service) for service in SERVICES)


def test_it_starts_everything_says_where_and_stops_it_on_ctrl_c(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")
        children = running.children()
        assert children.keys() == PROGRAMS
        assert everything_answers(running)
        for service in SERVICES:
            running.heard.until(f"{service:<10} {running.url(service)}")
        running.heard.until(str(tmp_path / "data"))

        assert running.interrupt() == ExitCode.OK

        until_all_ended([*children.values()])
        running.heard.until("stopped")
        assert not [line for line in running.heard.lines if "killing" in line]


def test_what_lies_in_the_folder_where_it_is_started_is_not_imported(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    (tmp_path / "http.py").write_text("raise SystemExit('somebody else wrote this')")
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")
        assert everything_answers(running)


def test_what_is_not_written_to_a_terminal_is_plain_and_the_log_is_json(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")
        running.interrupt()

        assert not [line for line in running.heard.lines if "\x1b" in line]
        for line in (tmp_path / "up.stderr").read_text().splitlines():
            json.loads(line)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_each_program_is_brought_back_when_it_is_killed(
    name: str, tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")

        running.kill(name)

        running.heard.until(f"{name} was ended by signal 9 (Killed); starting it again in 0.2 s")
        running.heard.until(f"{name} is ready again")
        assert running.children().keys() == PROGRAMS
        assert everything_answers(running)
        assert running.interrupt() == ExitCode.OK


def test_the_broker_comes_back_when_its_files_are_gone(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")

        running.kill("broker")
        shutil.rmtree(tmp_path / "data" / "broker")

        running.heard.until("broker is ready again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_ways_of_asking_stop_it_as_cleanly(
    number: signal.Signals, tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")

        running.process.send_signal(number)

        assert running.process.wait(BOUND_SECONDS) == ExitCode.OK
        running.heard.until("stopped")


def test_it_can_be_stopped_while_it_starts(tmp_path: Path, free_ports: FreePorts) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("starting")

        code = running.interrupt()

        assert code == ExitCode.OK
        assert not [line for line in running.heard.lines if "is ready" in line]


def test_it_can_be_stopped_while_a_program_is_being_brought_back(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(4)) as running:
        running.heard.until("todoku is ready in ")
        running.kill("orders")
        running.heard.until("starting it again")

        assert running.interrupt() == ExitCode.OK


def test_what_hangs_is_killed_at_the_second_ctrl_c(tmp_path: Path, free_ports: FreePorts) -> None:
    """A stopped process hears no SIGTERM; the grace is longer than the test may take."""
    with up(tmp_path, free_ports(4), "--shutdown-grace-seconds", "3600") as running:
        running.heard.until("todoku is ready in ")
        children = running.children()
        os.kill(children["shipping"], signal.SIGSTOP)
        running.process.send_signal(signal.SIGINT)
        running.heard.until("stopping")

        code = running.interrupt()

        assert code == ExitCode.FAILED
        running.heard.until("shipping has not stopped; killing it")
        until_all_ended([*children.values()])


def test_when_it_is_killed_its_programs_end_and_it_can_be_started_again_at_once(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    ports = free_ports(4)
    with up(tmp_path, ports) as killed:
        killed.heard.until("todoku is ready in ")
        children = killed.children()

        killed.process.kill()
        with up(tmp_path, ports) as running:
            running.heard.until("todoku is ready in ")

            until_all_ended([*children.values()])
            assert everything_answers(running)
            assert running.interrupt() == ExitCode.OK

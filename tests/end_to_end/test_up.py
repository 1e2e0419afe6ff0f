"""`todoku up` restarts what fails, and leaves no process behind."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import BOUND_SECONDS, Up, up

from end_to_end.running import PORT_COUNT
from todoku import __version__
from todoku.cli.exit_codes import ExitCode
from todoku.system import system

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

PROGRAMS = {"broker", *system.names}
FreePorts = Callable[[int], list[int]]


def until_all_ended(pids: list[int]) -> None:
    """Wait until none of these processes exists."""
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
    return all(running.answers(service) for service in system.names)


def test_up_starts_all_prints_addresses_and_stops_on_ctrl_c(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(PORT_COUNT)) as running:
        running.output.until("todoku is ready in ")
        children = running.children()
        assert children.keys() == PROGRAMS
        assert everything_answers(running)
        for service in system.names:
            running.output.until(f"{service:<10} {running.url(service)}")
        running.output.until(f"docs       {running.url('orders')}/docs")
        running.output.until(str(tmp_path / "data"))

        assert running.interrupt() == ExitCode.OK

        until_all_ended([*children.values()])
        running.output.until("stopped")
        assert not [line for line in running.output.lines if "killing" in line]

        # Piped output is plain, and the log is JSON.
        assert not [line for line in running.output.lines if "\x1b" in line]
        for line in (tmp_path / "up.stderr").read_text().splitlines():
            json.loads(line)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, free_ports: FreePorts) -> Iterator[Up]:
    """A running `todoku up`, shared by tests that leave everything running."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "http.py").write_text("raise SystemExit('somebody else wrote this')")
    with up(folder, free_ports(PORT_COUNT)) as running:
        running.output.until("todoku is ready in ")
        yield running
        assert running.interrupt() == ExitCode.OK


@contextmanager
def restart_of(name: str, running: Up) -> Iterator[None]:
    """Wait, at the end, until a program was restarted and everything answers."""
    ready = f"{name} is ready again"
    before = running.output.count(ready)
    yield
    running.output.until(ready, times=before + 1)
    assert running.children().keys() == PROGRAMS
    assert everything_answers(running)


def test_modules_in_working_directory_are_not_imported(shared: Up) -> None:
    """The folder has an `http.py`."""
    assert everything_answers(shared)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_killed_program_is_restarted(name: str, shared: Up) -> None:
    with restart_of(name, shared):
        shared.kill(name)

        shared.output.until(f"{name} was ended by signal 9 (Killed); starting it again in 0.2 s")


def test_stopped_service_is_diagnosed_and_restarted(shared: Up, tmp_path: Path) -> None:
    """A stopped process keeps its port; connections to it are accepted and never answered."""
    with restart_of("shipping", shared):
        shipping = shared.children()["shipping"]
        os.kill(shipping, signal.SIGSTOP)

        # The settings, among them the ports, are those of the running `up`.
        data_dir = str(shared.settings.data_dir)
        diagnosis = subprocess.run(
            [sys.executable, "-m", "todoku", "doctor", "--json", "--data-dir", data_dir],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=BOUND_SECONDS,
            check=False,
        )
        assert diagnosis.returncode == ExitCode.FAILED
        assert f"shipping does not respond (process {shipping} is stopped)" in diagnosis.stdout
        assert f"those of the running `todoku up` {__version__}" in diagnosis.stdout

        shared.output.until("shipping runs but does not work: it has not responded within 10 s")


def test_broker_recovers_from_deleted_files(shared: Up) -> None:
    with restart_of("broker", shared):
        shared.kill("broker")
        shutil.rmtree(shared.settings.data_dir / "broker")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_and_sighup_stop_cleanly(
    number: signal.Signals, tmp_path: Path, free_ports: FreePorts
) -> None:
    with up(tmp_path, free_ports(PORT_COUNT)) as running:
        running.output.until("todoku is ready in ")

        running.process.send_signal(number)

        assert running.process.wait(BOUND_SECONDS) == ExitCode.OK
        running.output.until("stopped")


def test_up_can_be_stopped_while_starting(tmp_path: Path, free_ports: FreePorts) -> None:
    with up(tmp_path, free_ports(PORT_COUNT)) as running:
        running.output.until("starting")

        code = running.interrupt()

        assert code == ExitCode.OK
        assert not [line for line in running.output.lines if "is ready" in line]


def test_up_can_be_stopped_while_program_restarts(tmp_path: Path, free_ports: FreePorts) -> None:
    with up(tmp_path, free_ports(PORT_COUNT)) as running:
        running.output.until("todoku is ready in ")
        running.kill("orders")
        running.output.until("starting it again")

        assert running.interrupt() == ExitCode.OK


def test_second_ctrl_c_kills_hanging_program(tmp_path: Path, free_ports: FreePorts) -> None:
    """A stopped process does not handle SIGTERM; the grace period is longer than the test may take."""
    with up(tmp_path, free_ports(PORT_COUNT), "--shutdown-grace-seconds", "3600") as running:
        running.output.until("todoku is ready in ")
        children = running.children()
        os.kill(children["shipping"], signal.SIGSTOP)
        running.process.send_signal(signal.SIGINT)
        running.output.until("stopping")

        code = running.interrupt()

        assert code == ExitCode.FAILED
        running.output.until("shipping has not stopped; killing it")
        until_all_ended([*children.values()])


def test_programs_end_when_up_is_killed_and_up_restarts_at_once(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    ports = free_ports(PORT_COUNT)
    with up(tmp_path, ports) as killed:
        killed.output.until("todoku is ready in ")
        children = killed.children()

        killed.process.kill()
        with up(tmp_path, ports) as running:
            running.output.until("todoku is ready in ")

            until_all_ended([*children.values()])
            assert everything_answers(running)
            assert running.interrupt() == ExitCode.OK

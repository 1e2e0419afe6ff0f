"""Tests that no program outlives the process that started it."""

import os
import signal
import subprocess
import sys

import pytest

from todoku.local.supervisor import TETHER

BOUND_SECONDS = 30

SLEEPER = "import signal\nprint('hello', flush=True)\nwhile True: signal.pause()"
PARENT = f"""
import os, signal, subprocess, sys
tether = [sys.executable, "-I", "-S", {str(TETHER)!r}, str(os.getpid())]
subprocess.Popen([*tether, sys.executable, "-c", {SLEEPER!r}], stdin=subprocess.PIPE,
                 start_new_session=True)
while True: signal.pause()
"""
WATCH = f"""
import sys
sys.path.insert(0, {str(TETHER.parent)!r})
import tether
sys.exit(tether.watch_over([sys.executable, "-c", sys.argv[1]]))
"""


def start(*argv: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def read_hello(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"hello\n"


def all_writers_are_gone(process: "subprocess.Popen[bytes]") -> bool:
    """The program shares its parent's output, so the pipe ends when both have ended."""
    assert process.stdout is not None
    return process.stdout.read() == b""


def close(process: "subprocess.Popen[bytes]") -> None:
    process.wait(BOUND_SECONDS)
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def test_program_ends_with_killed_parent() -> None:
    parent = start("-c", PARENT)
    read_hello(parent)

    parent.kill()

    assert all_writers_are_gone(parent)
    close(parent)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the lifeline tells")
def test_program_is_not_started_after_parent_died() -> None:
    """The parent named here is not the one that started it, as after an adoption."""
    orphan = start("-I", "-S", str(TETHER), "1", sys.executable, "-c", "print('begun')")

    assert all_writers_are_gone(orphan)
    close(orphan)
    assert orphan.returncode == 1


def test_end_of_lifeline_ends_program_outside_linux() -> None:
    watcher = start("-c", WATCH, SLEEPER)
    read_hello(watcher)

    assert watcher.stdin is not None
    watcher.stdin.close()

    assert all_writers_are_gone(watcher)
    close(watcher)


def test_watched_program_stops_on_signal_to_its_group() -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "print('hello', flush=True)\n"
        "while True: signal.pause()"
    )
    watcher = start("-c", WATCH, code)
    read_hello(watcher)

    os.killpg(watcher.pid, signal.SIGTERM)

    close(watcher)
    assert watcher.returncode == 7

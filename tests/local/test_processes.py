"""Processes are found by the port on which they listen; it is seen whether they are stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from todoku.local.processes import command, describe, is_stopped, listener

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")

BOUND_SECONDS = 30.0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_listener_of_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert listener(port) == os.getpid()

    assert listener(port) is None


def test_command_that_would_control_a_terminal_is_escaped() -> None:
    argv = ["/bin/sh", "-c", "read line", "a\x1b[2Jb\nc", "豊富"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        until(lambda: command(process.pid) == argv)
        assert describe(process.pid).endswith(r"(sh -c read line a\x1b[2Jb\nc 豊富)")
        process.communicate(b"")


def test_process_is_described_by_its_command() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            until(lambda: command(process.pid) == ["/bin/sleep", "60"])
            assert describe(process.pid) == f"process {process.pid} (sleep 60)"
        finally:
            process.kill()

    assert describe(process.pid) == f"process {process.pid}"


def test_stopped_process_is_recognised() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            assert not is_stopped(process.pid)
            process.send_signal(signal.SIGSTOP)
            until(lambda: is_stopped(process.pid))
        finally:
            process.kill()

    assert not is_stopped(process.pid)

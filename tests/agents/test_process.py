"""The process of `todoku mcp`: how it starts, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from todoku.cli.exit_codes import ExitCode

MCP = (sys.executable, "-P", "-m", "todoku", "mcp")
SECONDS_MAX = 30
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@contextmanager
def started(folder: Path, *flags: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `todoku mcp` with an empty data folder; it is killed at the end if it still runs."""
    with subprocess.Popen(
        [*MCP, *flags],
        env={"TODOKU_DATA_DIR": str(folder), "HOME": str(folder)},
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_taken_port_is_told_on_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(tmp_path, "--http", str(port)) as process:
            _, told = process.communicate(timeout=SECONDS_MAX)
    assert process.returncode == ExitCode.CANNOT_START
    assert f"127.0.0.1:{port}" in told
    assert len(told.splitlines()) == 1


def test_interrupt_ends_it_while_it_waits_for_input(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(INITIALIZE) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "todoku"
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS_MAX) == ExitCode.INTERRUPTED
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()

"""The process of `todoku mcp`: how it starts, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from todoku.cli.exit_codes import ExitCode
from todoku.lab.output import CapturedOutput

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


def test_server_over_http_ends_quietly_and_keeps_no_stream_open(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    """A client that asks for a stream is told that there is none, so that none delays the end."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}/mcp"
    types = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    with started(tmp_path, "--http", str(port)) as process:
        assert process.stderr is not None
        output = CapturedOutput(process.stderr)
        output.until("agents reach it at ")
        call = urllib.request.Request(url, json.dumps(INITIALIZE).encode(), types)
        with urllib.request.urlopen(call, timeout=SECONDS_MAX) as answer:
            assert json.load(answer)["result"]["serverInfo"]["name"] == "todoku"
        for method in ("GET", "DELETE"):
            stream = urllib.request.Request(url, headers=types, method=method)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(stream, timeout=SECONDS_MAX)
            assert (refused.value.code, refused.value.headers["Allow"]) == (405, "POST")
            refused.value.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS_MAX) == ExitCode.OK
        output.until_end()
        assert len(output.lines) == 1, output.lines


def test_interrupt_gives_up_a_call_that_waits_for_a_mute_service(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    """Services may take 35 s to answer. The caller is told that the outcome is unknown."""
    [port] = free_ports(1)
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "list_orders", "arguments": {}},
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/mcp",
        json.dumps(call).encode(),
        {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"},
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        started(
            tmp_path, "--http", str(port), "--orders-port", str(mute.getsockname()[1])
        ) as process,
        ThreadPoolExecutor(1) as caller,
    ):
        assert process.stderr is not None
        CapturedOutput(process.stderr).until("agents reach it at ")
        calling = caller.submit(urllib.request.urlopen, request, timeout=SECONDS_MAX)
        mute.settimeout(SECONDS_MAX)
        connection, _ = mute.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS_MAX) == ExitCode.OK
            with calling.result() as answer:
                result = json.load(answer)["result"]
    assert result["isError"]
    assert "was stopped while it waited" in result["content"][0]["text"]

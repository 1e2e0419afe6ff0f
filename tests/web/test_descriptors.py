"""What happens when file descriptors run out."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from todoku.web.descriptors import raise_descriptor_limit
from web.raw import LIVEZ, statuses

pytestmark = pytest.mark.anyio

LIMIT = 150
"""Enough for the server and its reserve, and for some fifty connections."""


class LimitedServer:
    """A server in a process of its own, with few file descriptors."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port = port
        self.process = process

    async def connect(self, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        return reader, writer

    async def ask(self) -> list[int]:
        """Return the statuses that a new client receives; none if it is cut."""
        reader = writer = None
        try:
            reader, writer = await self.connect(LIVEZ + b"Connection: close\r\n\r\n")
            return statuses(await asyncio.wait_for(reader.read(), 10))
        except ConnectionError:
            return []
        finally:
            if writer is not None:
                writer.close()

    async def wait_until_served(self) -> None:
        async with asyncio.timeout(30):
            while await self.ask() != [200]:  # noqa: ASYNC110 - nothing signals it
                await asyncio.sleep(0.05)

    async def stop(self) -> str:
        """Stop the server; return what it has logged."""
        self.process.terminate()
        out, _ = await asyncio.wait_for(self.process.communicate(), 30)
        return out.decode()


@asynccontextmanager
async def limited_server() -> AsyncIterator[LimitedServer]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "web.limited_server", str(port), str(LIMIT)),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=asyncio.subprocess.PIPE,
    )
    server = LimitedServer(port, process)
    try:
        await server.wait_until_served()
        yield server
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_slow_clients_beyond_the_limit_do_not_shut_out_others() -> None:
    async with limited_server() as server:
        slow = [await server.connect(b"GET /livez HTTP/1.1\r\n") for _ in range(LIMIT)]
        await server.wait_until_served()
        answers = await asyncio.gather(
            *(asyncio.wait_for(reader.read(), 30) for reader, _ in slow), return_exceptions=True
        )
        for _, writer in slow:
            writer.close()
        log = await server.stop()
    assert log.count("file_descriptors_exhausted") == 1
    received = {tuple(statuses(answer)) for answer in answers if isinstance(answer, bytes)}
    assert received <= {(503,), (408,), ()}
    assert (408,) in received


async def test_idle_connections_are_closed_for_new_ones() -> None:
    async with limited_server() as server:
        idle = []
        for _ in range(LIMIT):
            reader, writer = await server.connect(LIVEZ + b"\r\n")
            answer = await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 10)
            assert statuses(answer) == [200]
            idle.append(writer)
        assert await server.ask() == [200]
        for writer in idle:
            writer.close()
        log = await server.stop()
    assert log.count("file_descriptors_exhausted") == 1


def test_soft_limit_is_raised_to_the_hard_limit() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200));"
        "from todoku.web.descriptors import raise_descriptor_limit; raise_descriptor_limit();"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.split() == ["200", "200"]


def test_limit_that_is_high_already_stays() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raised = raise_descriptor_limit()
        assert raised >= min(before[0], 2**20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

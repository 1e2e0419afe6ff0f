"""Passes TCP connections on with a delay, as a network between machines does.

    python -m todoku.lab.delaying_proxy MILLISECONDS HOST:PORT...

Listens on a free port of 127.0.0.1 for each target, and prints these ports on one line. The delay is that of
a round trip: half of it in each direction. It ends when its standard input is closed.
"""

import asyncio
import sys
from collections.abc import Sequence


async def serve(milliseconds: float, targets: Sequence[tuple[str, int]]) -> None:
    """Pass connections on to each of the targets until standard input is closed."""
    seconds = milliseconds / 2_000
    servers = [
        await asyncio.start_server(_Passing(seconds, *target), "127.0.0.1", 0) for target in targets
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for server in servers:
        server.close()


class _Passing:
    """Passes each connection on to one target."""

    def __init__(self, seconds: float, host: str, port: int) -> None:
        self._seconds = seconds
        self._target = host, port

    async def __call__(
        self, near_reader: asyncio.StreamReader, near_writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            near_writer.close()
            return
        await asyncio.gather(
            self._pass_on(near_reader, far_writer), self._pass_on(far_reader, near_writer)
        )

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        try:
            while data := await reader.read(2**16):
                loop.call_later(self._seconds, _write, writer, data)
        except OSError:
            pass  # The other side ended it: so does this one.
        loop.call_later(self._seconds, writer.close)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)


def _target(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1]), [_target(each) for each in sys.argv[2:]]))

"""Chunks written to a connection."""

import asyncio
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from todoku.web import Reply
from todoku.web.connections import BoundedHttpProtocol, GatheringTransport

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class RecordingTransport(asyncio.Transport):
    """Record written chunks and the close."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.written.append(b"closed")

    def pause_reading(self) -> None:
        """Do nothing: no more data is received."""

    def resume_reading(self) -> None:
        """Do nothing: no more data is received."""

    def is_closing(self) -> bool:
        return b"closed" in self.written


@pytest.mark.parametrize(
    ("request_line", "pieces_wanted"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", [b'{"a":1}']),
        (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", [b""]),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", [b'{"a":1}', None]),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2, [b'{"a":1}', b'{"a":1}']),
    ],
)
async def test_reply_is_written_in_one_chunk(
    request_line: bytes, pieces_wanted: list[bytes | None]
) -> None:
    reply = Reply(200, {"a": 1})
    config = Config(reply, http=BoundedHttpProtocol, lifespan="off", log_config=None)
    config.load()
    protocol = BoundedHttpProtocol(config=config, server_state=ServerState(), app_state={})
    transport = RecordingTransport()
    protocol.connection_made(transport)
    protocol.data_received(request_line)
    while protocol.server_state.tasks:
        await asyncio.gather(*protocol.server_state.tasks)
    bodies = [
        None if piece == b"closed" else piece.partition(b"\r\n\r\n")[2]
        for piece in transport.written
    ]
    assert bodies == pieces_wanted


def test_nothing_is_written_to_closed_connection() -> None:
    transport = RecordingTransport()
    gathering = GatheringTransport(transport)
    gathering.close()
    gathering.write(b"late")
    with gathering:
        gathering.write(b"later")
    assert transport.written == [b"closed"]


def test_buffered_data_is_written_before_close() -> None:
    transport = RecordingTransport()
    gathering = GatheringTransport(transport)
    gathering.write(b"1")
    with gathering:
        gathering.write(b"2")
        gathering.write(b"3")
        gathering.close()
    assert transport.written == [b"1", b"23", b"closed"]

"""Just enough of HTTP/1.1 to place orders at a few microseconds each: the client shares the machine."""

import asyncio
from collections.abc import Callable

import msgspec

CONTENT_LENGTH = b"content-length: "


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came back: the status of HTTP, and the body."""

    status: int
    body: bytes


class Connection(asyncio.Protocol):
    """A connection with one request under way at a time.

    `answered` is called with each answer. `lost` is called once, when the connection is no more:
    what is under way then is not answered.
    """

    def __init__(
        self,
        answered: Callable[["Connection", Answer], None],
        lost: Callable[["Connection"], None],
    ) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport
        self._arrived = b""

    def send(self, request: bytes) -> None:
        """Send a request; the one before must have been answered."""
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._arrived:
            data = self._arrived + data
        answer = read_answer(data)
        if answer is None:
            self._arrived = data
        else:
            self._arrived = b""
            self._answered(self, answer)

    def connection_lost(self, _: Exception | None) -> None:
        self._lost(self)


def request(method: str, host: str, path: str, body: bytes = b"") -> bytes:
    """A request as it goes onto the wire; a body is JSON."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def read_answer(data: bytes) -> Answer | None:
    """The answer, or None while it is not complete.

    Raises `ValueError` for one whose head does not say how long it is.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower() + b"\r"
    place = head.index(CONTENT_LENGTH) + len(CONTENT_LENGTH)
    whole = end + 4 + int(head[place : head.index(b"\r", place)])
    return Answer(int(data[9:12]), data[end + 4 : whole]) if len(data) >= whole else None

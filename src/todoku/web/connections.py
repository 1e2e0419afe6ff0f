"""Connections of slow and half-open clients do not stay open for ever."""

import asyncio
import re
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from todoku.web.exchange import COMPLETE, IN_ONE_PIECE, encode
from todoku.web.problems import (
    CONTENT_TYPE,
    HEADERS_TOO_LARGE,
    MALFORMED_REQUEST,
    Problem,
)


def refusing(problem: Problem) -> ASGIApp:
    """The application for a request that is refused because of its headers."""
    body = encode(problem.details())
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        status = problem.kind.status
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return refuse


TOO_LARGE = Problem(HEADERS_TOO_LARGE, "Send fewer or shorter headers: 64 KiB at most.")
refuse_size = refusing(TOO_LARGE)

# RFC 9112, section 3.2; RFC 3986, section 3.2.2.
refuse_hosts = refusing(
    Problem(MALFORMED_REQUEST, "Send the header Host, once only: a name, perhaps with a port.")
)
_is_host = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*").fullmatch


class GatheringTransport:
    """A transport that keeps what it is given within a `with`, and writes it together at its end.

    uvloop writes each piece at once: the head of a reply and its body would be two system calls here,
    and two at the client.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._kept: list[bytes] | None = None
        self.is_closing = transport.is_closing

    def __enter__(self) -> None:
        self._kept = []

    def __exit__(self, *_: object) -> None:
        kept, self._kept = self._kept, None
        if kept:
            self.write(b"".join(kept))

    def write(self, data: bytes) -> None:
        """Write this, or keep it. Whoever has hung up early, with more asked, is written nothing."""
        if self._kept is not None:
            self._kept.append(data)
        elif not self.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close the connection, after what is kept is written."""
        self.__exit__()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a time within which the headers of a request must be complete.

    uvicorn bounds only the pause between two requests. The time for a body is bounded where bodies
    are read, with an answer; a client that does not finish its headers is hung up on.
    """

    header_seconds_max: ClassVar[float] = 10.0
    header_bytes_max: ClassVar[int] = 64 * 1024

    _alarm: asyncio.TimerHandle | None = None
    _headers_due_at: float | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = GatheringTransport(transport)  # type: ignore[assignment]
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        awaited = self._headers_due_at is not None
        super().data_received(data)
        # Only what has not completed the headers counts: a body may come in the same piece.
        self._header_bytes = self._header_bytes + len(data) if awaited else 0
        if self._headers_due_at is not None and self._header_bytes > self.header_bytes_max:
            self._refuse(TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets a problem too, like everything else that is not understood."""
        self._refuse(
            Problem(
                MALFORMED_REQUEST,
                "This is not an HTTP/1.1 request. If it is one but for an address that is not "
                "ASCII, percent-encode that, as curl does with -G --data-urlencode.",
            )
        )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._headers_due_at = None
        if not self._is_addressed():
            self.app = refuse_hosts
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.header_bytes_max:  # They may all have come in one piece.
            self.app = refuse_size
        super().on_headers_complete()

    def _is_addressed(self) -> bool:
        """Whether the request has a Host, as it must but for HTTP/1.0."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if not hosts:
            return bool(self.parser.get_http_version() == "1.0")
        return len(hosts) == 1 and _is_host(hosts[0]) is not None

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays: who has said all may still wait for the answer to it."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def on_message_complete(self) -> None:
        self.scope[COMPLETE] = True  # type: ignore[typeddict-unknown-key]
        self.scope[IN_ONE_PIECE] = self.transport  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_due_at = None
        if self._alarm is not None:
            self._alarm.cancel()
        super().connection_lost(exc)

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        body = encode(problem.details())
        status = problem.kind.status
        reason = HTTPStatus(status).phrase
        self.transport.write(
            f"HTTP/1.1 {status} {reason}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
            + body
        )
        self.transport.close()

    def _expect_headers(self) -> None:
        self._header_bytes = 0
        self._headers_due_at = self.loop.time() + self.header_seconds_max
        if self._alarm is None:
            self._alarm = self.loop.call_at(self._headers_due_at, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        # The alarm is not set anew for each request, which would cost more than reading its headers.
        self._alarm = None
        if self._headers_due_at is None:
            return
        if self._headers_due_at > self.loop.time():
            self._alarm = self.loop.call_at(self._headers_due_at, self._look_at_the_clock)
        else:
            self._hang_up()

    def _hang_up(self) -> None:
        # A request that is still being answered comes first; the client sent the next one early.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._expect_headers()

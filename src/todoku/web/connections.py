"""HTTP/1.1 connections with bounds on the size and duration of requests."""

import asyncio
import re
from http import HTTPStatus
from typing import ClassVar

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from todoku.web.body import BODY_RECEIVED
from todoku.web.problems import (
    CONTENT_TYPE,
    HEADERS_TOO_LARGE,
    MALFORMED_REQUEST,
    Problem,
)
from todoku.web.reply import SHUTDOWN, encode


def problem_app(problem: Problem) -> ASGIApp:
    """Return an application that answers a request with this problem and closes the connection."""
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
size_refused = problem_app(TOO_LARGE)

# RFC 9112, section 3.2; RFC 3986, section 3.2.2.
host_refused = problem_app(
    Problem(MALFORMED_REQUEST, "Send the header Host, once only: a name, perhaps with a port.")
)
_is_host = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*").fullmatch


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on the size and duration of request headers.

    uvicorn bounds only the idle time between requests. The time for a body is bounded where bodies
    are read (`read_body`). A client that does not complete its headers is disconnected.
    """

    header_seconds_max: ClassVar[float] = 10.0
    header_bytes_max: ClassVar[int] = 64 * 1024

    _alarm: asyncio.TimerHandle | None = None
    _header_deadline: float | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._shutdown = asyncio.Event()
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        awaited = self._header_deadline is not None
        super().data_received(data)
        # Only bytes before the end of the headers count: a body may arrive in the same chunk.
        self._header_bytes = self._header_bytes + len(data) if awaited else 0
        if self._header_deadline is not None and self._header_bytes > self.header_bytes_max:
            self._refuse(TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are not HTTP with a problem document."""
        self._refuse(
            Problem(
                MALFORMED_REQUEST,
                "This is not a valid HTTP/1.1 request. If the address has characters outside "
                "ASCII, percent-encode them, as curl does with -G --data-urlencode.",
            )
        )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._header_deadline = None
        self.scope[SHUTDOWN] = self._shutdown  # type: ignore[typeddict-unknown-key]
        if not self._has_valid_host():
            self.app = host_refused
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.header_bytes_max:  # All headers may have arrived in one chunk.
            self.app = size_refused
        super().on_headers_complete()

    def _has_valid_host(self) -> bool:
        """Return whether the request has one valid Host header; HTTP/1.0 needs none."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if not hosts:
            return bool(self.parser.get_http_version() == "1.0")
        return len(hosts) == 1 and _is_host(hosts[0]) is not None

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether to keep the connection: a client that closed its side may await a response."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering or self.cycle.more_body or self.cycle.chunked_encoding:
            return False  # Nobody reads the rest of a stream.
        self.cycle.keep_alive = False
        return True

    def shutdown(self) -> None:
        """Let streams end, and close the connection after the response."""
        self._shutdown.set()
        super().shutdown()

    def on_message_complete(self) -> None:
        self.scope[BODY_RECEIVED] = True  # type: ignore[typeddict-unknown-key]
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_deadline = None
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
        self._header_deadline = self.loop.time() + self.header_seconds_max
        if self._alarm is None:
            self._alarm = self.loop.call_at(self._header_deadline, self._check_header_deadline)

    def _check_header_deadline(self) -> None:
        # One timer is reused, because a timer for each request costs more than parsing its headers.
        self._alarm = None
        if self._header_deadline is None:
            return
        if self._header_deadline > self.loop.time():
            self._alarm = self.loop.call_at(self._header_deadline, self._check_header_deadline)
        else:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        # A pipelined client may have begun this request while the one before is being answered.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._expect_headers()

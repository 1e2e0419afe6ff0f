"""HTTP/1.1 connections with bounds on the size, number and duration of requests.

uvicorn bounds only the idle time between requests. Handlers bound the time of the bodies that they
read (`read_body`); all other bounds are here.
"""

import asyncio
from http import HTTPStatus
from typing import ClassVar, Final

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from todoku.web.body import BODY_RECEIVED
from todoku.web.descriptors import DescriptorReserve
from todoku.web.one_write import ONE_WRITE, CoalescingTransport
from todoku.web.problems import (
    CONTENT_TYPE,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    OVERLOADED,
    REQUEST_TOO_SLOW,
    Problem,
)
from todoku.web.reply import SHUTDOWN, encode
from todoku.web.request_heads import (
    HEADER_BYTES_MAX,
    TOO_LARGE,
    WRONG_VERSION,
    find_fault,
    is_too_large,
    problem_app,
    to_origin_form,
    without_upgrade,
)

NOT_HTTP: Final = Problem(
    MALFORMED_REQUEST,
    "This is not a valid HTTP/1.1 request. If the address has characters outside ASCII, "
    "percent-encode them, as curl does with -G --data-urlencode.",
)
TOO_SLOW: Final = Problem(
    REQUEST_TOO_SLOW, "The headers were not complete in time: send the request again."
)
NO_DESCRIPTORS: Final = Problem(
    OVERLOADED, "Too many connections are open.", headers={"Retry-After": "1"}
)
NO_TUNNELS: Final = Problem(METHOD_NOT_ALLOWED, "CONNECT is not supported: this is no proxy.")

PARSE_BYTES_MAX: Final = 4096
"""How much is parsed before the length of the pipeline is looked at again."""

FRAMING_BYTES_A_BODY_BYTE: Final = 8
"""What chunk sizes may add to a body: a chunk of one byte takes six bytes."""

LINGER_SECONDS_MAX: Final = 2.0
LINGER_BYTES_MAX: Final = 2**24
"""How much is dropped after a refusal. A client that is cut while it sends might not see it."""


class Ignored(list[tuple[bytes, bytes]]):
    """Takes the place of the headers when they are complete: what follows are trailers."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Do nothing."""


class ParsingFlowControl(FlowControl):
    """uvicorn's flow control, which does not resume reading while parsing is paused."""

    parsing_paused = False

    def resume_reading(self) -> None:
        if not self.parsing_paused:
            super().resume_reading()


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds."""

    header_seconds_max: ClassVar[float] = 10.0
    """From the first byte of a request to the end of its headers."""

    body_seconds_max: ClassVar[float] = 10.0
    """For the rest of a body after the response to it."""

    write_seconds_max: ClassVar[float] = 30.0
    """For a client to receive what is buffered: about 64 KiB."""

    check_seconds: ClassVar[float] = 2.0
    """How often these bounds are checked: one timer a connection is cheaper than one a request."""

    pipeline_max: ClassVar[int] = 64
    """How many requests wait for the response to an earlier one, before no more are parsed."""

    descriptor_reserve: ClassVar[DescriptorReserve] = DescriptorReserve()

    flow: ParsingFlowControl

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._one_write = CoalescingTransport(transport)
        self.transport = self._one_write  # type: ignore[assignment]
        self.flow = ParsingFlowControl(transport)
        self._shutdown = asyncio.Event()
        self._unparsed = b""
        self._framing_bytes = self._body_bytes = self._dropped_bytes = 0
        self._unanswered = 0
        self._message_open = self._headers_complete = self._upgrade_ignored = False
        self._eof = self._faulty = False
        self._refusal: Problem | None = None
        now = self.loop.time()
        self._header_deadline: float | None = now + self.header_seconds_max
        self._body_deadline: float | None = None
        self._close_deadline: float | None = None
        self._sent_at = now
        self._timer = self.loop.call_later(self.check_seconds, self._check_bounds)
        if self.descriptor_reserve.is_reached_by(transport, len(self.connections)):
            self._make_room()

    def _make_room(self) -> None:
        """Close an idle connection to keep this one, or refuse this one."""
        idle = next((c for c in self.connections if getattr(c, "is_idle", False)), None)
        if idle is not None and idle is not self:
            idle.transport.close()
        else:
            self._refuse(NO_DESCRIPTORS)

    @property
    def is_idle(self) -> bool:
        """Whether the client has received all responses and sent nothing since."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and not self._message_open and not self.transport.is_closing()

    # What the client sends

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is not None or self.transport.is_closing():
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES_MAX:
                self.transport.close()
            return
        if self._unparsed:
            self._unparsed += data
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        for start in range(0, len(data), PARSE_BYTES_MAX):
            if len(self.pipeline) >= self.pipeline_max:
                self._pause_parsing(data[start:])
                return
            self._parse_part(data[start : start + PARSE_BYTES_MAX])
            if self._refusal is not None or self.transport.is_closing():
                return
        if self._framing_bytes and not self._message_open and self._header_deadline is None:
            self._header_deadline = self.loop.time() + self.header_seconds_max  # Blank lines.

    def _parse_part(self, data: bytes) -> None:
        self._framing_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            wrong_version = "HTTP version" in str(error) or "PRI" in str(error)
            self._refuse(WRONG_VERSION if wrong_version else NOT_HTTP)
        else:
            bound = HEADER_BYTES_MAX + FRAMING_BYTES_A_BODY_BYTE * self._body_bytes
            if self._framing_bytes > bound:
                self._refuse(TOO_LARGE)

    def _parse_without_upgrade(self, rest: bytes) -> None:
        """Parse a request again that asked for another protocol, and what follows it."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(NO_TUNNELS)
            return
        head = without_upgrade(method, self.url, version, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._framing_bytes -= len(head)
        self._parse_part(head)
        if rest and self._refusal is None:
            self._framing_bytes -= len(rest)
            self._parse_part(rest)

    def _pause_parsing(self, unparsed: bytes) -> None:
        self._unparsed = unparsed
        self.flow.pause_reading()
        self.flow.parsing_paused = True

    def _resume_parsing(self) -> None:
        unparsed, self._unparsed = self._unparsed, b""
        self.flow.parsing_paused = False
        self._parse(unparsed)
        self.flow.resume_reading()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether to keep the connection: a client that closed its side may await a response."""
        self._eof = True
        if self._close_deadline is not None:
            return False
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering or self.cycle.more_body or self.cycle.chunked_encoding:
            return False  # Nobody reads the rest of a stream.
        if not self._unparsed:
            self.cycle.keep_alive = False
        return True

    # What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._message_open, self._headers_complete = True, False
        self._body_deadline = None
        self._header_deadline = self.loop.time() + self.header_seconds_max

    def on_headers_complete(self) -> None:
        self._headers_complete = True
        self._header_deadline = None
        self._upgrade_ignored = self.parser.should_upgrade()
        if self._upgrade_ignored:
            return
        if not self.url.startswith(b"/"):
            self.url = to_origin_form(self.url)
        self.scope[SHUTDOWN] = self._shutdown  # type: ignore[typeddict-unknown-key]
        self.scope[ONE_WRITE] = self._one_write  # type: ignore[typeddict-unknown-key]
        fault = find_fault(self.parser.get_http_version(), self.headers)
        if self._framing_bytes > HEADER_BYTES_MAX and is_too_large(self.url, self.headers):
            fault = TOO_LARGE
        self._faulty = fault is not None
        self.app = self.config.loaded_app if fault is None else problem_app(fault)
        self._unanswered += 1
        super().on_headers_complete()
        self.headers = Ignored()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_ignored:
            return
        self._message_open = False
        self._body_deadline = None
        self._framing_bytes = self._body_bytes = 0
        self.scope[BODY_RECEIVED] = True  # type: ignore[typeddict-unknown-key]
        if self.cycle.response_complete:  # The timer was unset when the rest of the body came.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        super().on_message_complete()

    # What is sent

    def on_response_complete(self) -> None:
        self._unanswered -= 1
        super().on_response_complete()
        if self.transport.is_closing():
            return
        if self._unparsed and len(self.pipeline) < self.pipeline_max // 2:
            self._resume_parsing()
        if self._unanswered:
            return
        self._send_refusal()
        if self._message_open and self._headers_complete:
            self._body_deadline = self.loop.time() + self.body_seconds_max
        elif self._eof:
            self.transport.close()

    def resume_writing(self) -> None:
        self._sent_at = self.loop.time()
        super().resume_writing()

    def _refuse(self, problem: Problem) -> None:
        """Refuse the bytes received last, once all earlier requests are answered."""
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = problem
        self._header_deadline = self._body_deadline = None
        if self._faulty:  # Its problem is the last response.
            return
        if self._message_open and self._headers_complete and not self._upgrade_ignored:
            self._drop_open_request()
        if not self._unanswered:
            self._send_refusal()

    def _drop_open_request(self) -> None:
        """Give up a request whose body cannot be parsed."""
        if self.cycle.response_complete:
            return
        self._unanswered -= 1
        if self.pipeline:
            self.pipeline.popleft()  # It was not started.
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _send_refusal(self) -> None:
        if self._refusal is None or self._close_deadline is not None:
            return
        begun = self._message_open and self._headers_complete and self.cycle is not None
        if begun and self.cycle.response_started:
            self.transport.close()
            return
        self.transport.write(_encode_refusal(self._refusal))
        self._close_deadline = self.loop.time() + LINGER_SECONDS_MAX
        if self.transport.can_write_eof() and not self._eof:
            self.transport.write_eof()
            self.flow.parsing_paused = False
            self.flow.resume_reading()
        else:
            self.transport.close()

    # Time

    def end_stream(self) -> None:
        """Let a stream end; its client connects again."""
        self._shutdown.set()

    def shutdown(self) -> None:
        """Let streams end, and close the connection after the response."""
        self.end_stream()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _check_bounds(self) -> None:
        """Close the connection if the client is too slow."""
        self._timer = self.loop.call_later(self.check_seconds, self._check_bounds)
        now = self.loop.time()
        if not self.transport.get_write_buffer_size():
            self._sent_at = now
        elif now > self._sent_at + self.write_seconds_max:
            self.transport.abort()
            return
        if _is_past(self._close_deadline, now) or _is_past(self._body_deadline, now):
            self.transport.close()
        elif _is_past(self._header_deadline, now):
            self._end_slow_headers()

    def _end_slow_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # A pipelined client may have begun this request while the one before is answered.
            self._header_deadline = self.loop.time() + self.header_seconds_max
        elif self._message_open:
            self._refuse(TOO_SLOW)
        else:
            self.transport.close()


def _is_past(deadline: float | None, now: float) -> bool:
    return deadline is not None and now > deadline


def _encode_refusal(problem: Problem) -> bytes:
    """Return a whole response."""
    body = encode(problem.details())
    head = [
        f"HTTP/1.1 {problem.kind.status} {HTTPStatus(problem.kind.status).phrase}",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in problem.headers.items()),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body

"""Provide a fast path for MSG, HMSG and PUB frames; nats-py does the rest of the protocol.

nats-py passes each message through two coroutines, a dictionary of headers and a copy of the buffer,
which takes several times as long as processing it here. Source: docs.nats.io, "NATS Client Protocol".
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache

import msgspec
import structlog
from nats.aio.client import Client as NatsClient
from nats.errors import Error as NatsError
from nats.errors import OutboundBufferLimitError, ProtocolError
from nats.protocol.parser import Parser

NEWLINE = b"\r\n"
NEWLINE_BYTES = len(NEWLINE)
VERSION = b"NATS/1.0"
FORBIDDEN = b"Permissions Violation"

log = structlog.get_logger()


class Headers(Mapping[str, str]):
    """Parse a message's headers lazily: they are rarely read."""

    __slots__ = ("_parsed", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._parsed: dict[str, str] | None = None

    @property
    def status_line(self) -> str:
        """Return the server's status, such as `409 Consumer Deleted`; empty for a published message."""
        first = self._raw.partition(NEWLINE)[0]
        return first.removeprefix(VERSION).strip().decode(errors="replace")

    @property
    def status(self) -> str:
        """Return the status code."""
        return self.status_line[:3]

    def find(self, name: str) -> str:
        """Return the first value of a header, written in exactly this way, or an empty string. It parses no
        others."""
        raw, mark = self._raw, _mark_of(name)
        place = raw.find(mark)
        if place < 0:
            return ""
        begin = place + len(mark)
        return raw[begin : raw.find(NEWLINE, begin)].decode(errors="replace")

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, str]:
        if self._parsed is None:
            self._parsed = NatsClient._parse_header_lines(self._raw.partition(NEWLINE)[2])
        return self._parsed


@cache
def _mark_of(name: str) -> bytes:
    """Return how the line of a header begins, after the line before."""
    return f"\r\n{name}: ".encode()


NO_HEADERS = Headers(b"")


class Message(msgspec.Struct, frozen=True, gc=False):
    """Hold a message that arrived; `reply` is empty where no answer is expected."""

    subject: str
    reply: str
    body: bytes
    headers: Headers


class ReplyInbox:
    """Call back for each message of a subscription as it is parsed. nats-py stores it as the
    subscription's future, and never touches it."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message

    def dispatch(self, message: Message) -> None:
        """Call back; an exception there must not end the reading of the connection."""
        try:
            self._on_message(message)
        except Exception:
            log.exception("broker_message_handler_failed", subject=message.subject)


def publication(subject: str, body: bytes, reply: str = "", headers: str = "") -> bytes:
    """Return the command that publishes a message; `headers` are lines such as `Name: value\\r\\n`. Subjects
    and headers are not validated."""
    if not headers:
        return f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + NEWLINE
    head = f"NATS/1.0\r\n{headers}\r\n".encode()
    command = f"HPUB {subject} {reply} {len(head)} {len(head) + len(body)}\r\n".encode()
    return command + head + body + NEWLINE


class NoTls(NatsError):
    """Raised where TLS is required and the server does not offer it; nothing was sent."""

    def __str__(self) -> str:
        return "the server offers no TLS, and `tls://` or a certificate asks for it"


class Client(NatsClient):
    """Extend nats-py's client: messages for a `ReplyInbox` take the fast path, `write`
    takes many commands at once, and a failing last flush on a lost connection is ignored.

    `on_forbidden` is called with each complaint of the server about a missing permission, as it is written:
    nats-py passes it on in lower case.
    """

    def __init__(self, on_forbidden: Callable[[str], None] = lambda _: None) -> None:
        super().__init__()
        self._ps = MessageParser(self)
        self.on_forbidden = on_forbidden

    @property
    def admits_anybody(self) -> bool:
        """Return whether the server takes clients that show neither a credential nor a certificate."""
        server = self._server_info
        return not (server.get("auth_required") or server.get("tls_verify"))

    def _connect_command(self) -> bytes:
        """Return what introduces this client, with its credentials; only over TLS where that was asked for.

        nats-py leaves TLS out if the server, or who stands in its place, does not ask for it.
        """
        server = self._current_server
        wanted = "tls" in self.options or (server is not None and server.uri.scheme == "tls")
        if wanted and not self._server_info.get("tls_required"):
            raise NoTls
        return super()._connect_command()

    async def write(self, commands: bytes) -> None:
        """Append commands to the buffer, which is flushed in the next turn of the event loop.

        With a `pending_size` of 0 it never waits. Raises `OutboundBufferLimitError` when there is no
        connection.
        """
        if not self.is_connected:
            raise OutboundBufferLimitError
        await self._send_command(commands)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def dispatch(self, sid: int, message: Message) -> None:
        """Pass a message to the inbox of its subscription, if that still exists."""
        subscription = self._subs.get(sid)
        inbox: object = subscription and subscription._future
        if isinstance(inbox, ReplyInbox):
            inbox.dispatch(message)

    async def _process_op_err(self, error: Exception) -> None:
        with contextlib.suppress(OSError):
            await super()._process_op_err(error)


class MessageParser(Parser):
    """Parse MSG and HMSG frames as soon as they are complete; leave all others to nats-py."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._client = client

    def reset(self) -> None:
        super().reset()
        self._rest = bytearray()
        self._complete_at = 0

    async def parse(self, data: bytes = b"") -> None:
        """Pass on the complete messages in this and in the incomplete rest from before."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._complete_at:
                return
            data = bytes(self._rest)
            self._rest.clear()
        try:
            place = await self._take(data)
        except ValueError as error:
            raise ProtocolError from error
        self._rest += data[place:]

    async def _take(self, data: bytes) -> int:
        """Return where the incomplete rest starts, after passing on what is complete."""
        place = self._complete_at = 0
        while (line_end := data.find(NEWLINE, place)) >= 0:
            begin = line_end + NEWLINE_BYTES
            reply, head_size = b"", b"0"
            match data[place:line_end].split(b" "):
                case [b"HMSG", subject, sid, reply, head_size, size]:
                    pass
                case [b"MSG", subject, sid, reply, size]:
                    pass
                case [b"HMSG", subject, sid, head_size, size]:
                    pass
                case [b"MSG", subject, sid, size]:
                    pass
                case [b"-ERR", *_] if FORBIDDEN in data[place:line_end]:
                    self._client.on_forbidden(data[place:line_end].decode(errors="replace"))
                    place = begin
                    continue
                case _:
                    await super().parse(data[place:begin])
                    place = begin
                    continue
            body, end = begin + int(head_size), begin + int(size)
            if len(data) < end + NEWLINE_BYTES:
                self._complete_at = end + NEWLINE_BYTES - place
                break
            headers = Headers(data[begin:body]) if body > begin else NO_HEADERS
            message = Message(subject.decode(), reply.decode(), data[body:end], headers)
            self._client.dispatch(int(sid), message)
            place = end + NEWLINE_BYTES
        return place

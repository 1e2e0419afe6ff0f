"""Messages as they go over the wire: nats-py keeps the connection, but does not handle them.

Its way of a message, through two coroutines, a dictionary of headers and a copy of the buffer, takes
several times as long as all that is done with the message here. The rest of the protocol, and what of
it is rare, stays nats-py's. Source: docs.nats.io, "NATS Client Protocol".
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import msgspec
import structlog
from nats.aio.client import Client as NatsClient
from nats.errors import OutboundBufferLimitError, ProtocolError
from nats.protocol.parser import Parser

NEWLINE = b"\r\n"
VERSION = b"NATS/1.0"

log = structlog.get_logger()


class Headers(Mapping[str, str]):
    """A message's headers, which are read when somebody looks: hardly anybody does."""

    __slots__ = ("_raw", "_read")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._read: dict[str, str] | None = None

    @property
    def word(self) -> str:
        """The server's own word about a request, such as `409 Consumer Deleted`; empty for a message of
        somebody's."""
        first = self._raw.partition(NEWLINE)[0]
        return first.removeprefix(VERSION).strip().decode(errors="replace")

    @property
    def status(self) -> str:
        """The number that it begins with."""
        return self.word[:3]

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, str]:
        if self._read is None:
            self._read = NatsClient._parse_header_lines(self._raw.partition(NEWLINE)[2])
        return self._read


NO_HEADERS = Headers(b"")


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message that has arrived; `reply` is empty where no answer is wanted."""

    subject: str
    reply: str
    body: bytes
    headers: Headers


class Inbox:
    """Hands over each message of a subscription as it is read. To nats-py it is the subscription's
    future, which it only keeps."""

    def __init__(self, heard: Callable[[Message], None]) -> None:
        self._heard = heard

    def hand_over(self, message: Message) -> None:
        """Tell who listens; what goes wrong there must not end the reading for good."""
        try:
            self._heard(message)
        except Exception:
            log.exception("broker_message_not_handled", subject=message.subject)


def publication(
    subject: str, body: bytes, reply: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """The command that publishes a message. Neither subjects nor headers are checked."""
    if headers is None:
        return f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + NEWLINE
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"NATS/1.0\r\n{lines}\r\n".encode()
    command = f"HPUB {subject} {reply} {len(head)} {len(head) + len(body)}\r\n".encode()
    return command + head + body + NEWLINE


class Client(NatsClient):
    """nats-py's client, but for three things: messages for an `Inbox` go there without detours,
    `write` takes many commands at once, and on a lost connection it does not fail in its last flush,
    for nobody to hear."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Reader(self)

    async def write(self, commands: bytes) -> None:
        """Put commands into the buffer, which is flushed when the event loop comes round.

        With a `pending_size` of 0 it never waits. Raises `OutboundBufferLimitError` when there is no
        connection.
        """
        if not self.is_connected:
            raise OutboundBufferLimitError
        await self._send_command(commands)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    def hand_over(self, sid: int, message: Message) -> None:
        """Give a message to the inbox of its subscription, if that still is."""
        subscription = self._subs.get(sid)
        inbox: object = subscription and subscription._future
        if isinstance(inbox, Inbox):
            inbox.hand_over(message)

    async def _process_op_err(self, error: Exception) -> None:
        with contextlib.suppress(OSError):
            await super()._process_op_err(error)


class _Reader(Parser):
    """Takes messages out of what has arrived, as soon as they are whole; leaves the rest to nats-py."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._client = client

    def reset(self) -> None:
        super().reset()
        self._cut = bytearray()
        self._whole_at = 0

    async def parse(self, data: bytes = b"") -> None:
        """Hand over the whole messages in this, and in what is left from before."""
        if self._cut:
            self._cut += data
            if len(self._cut) < self._whole_at:
                return
            data = bytes(self._cut)
            self._cut.clear()
        try:
            place = await self._take(data)
        except ValueError as error:
            raise ProtocolError from error
        self._cut += data[place:]

    async def _take(self, data: bytes) -> int:
        """Where in this, after all that is whole, something is cut off."""
        place = self._whole_at = 0
        while (line_end := data.find(NEWLINE, place)) >= 0:
            begin = line_end + len(NEWLINE)
            head_size = b"0"
            match data[place:line_end].split(b" "):
                case [b"HMSG", subject, sid, *reply, head_size, size]:
                    pass
                case [b"MSG", subject, sid, *reply, size]:
                    pass
                case _:
                    await super().parse(data[place:begin])
                    place = begin
                    continue
            body, end = begin + int(head_size), begin + int(size)
            if len(data) < end + len(NEWLINE):
                self._whole_at = end + len(NEWLINE) - place
                break
            headers = Headers(data[begin:body]) if body > begin else NO_HEADERS
            message = Message(subject.decode(), b"".join(reply).decode(), data[body:end], headers)
            self._client.hand_over(int(sid), message)
            place = end + len(NEWLINE)
        return place

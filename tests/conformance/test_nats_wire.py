"""Compare the fast path for messages with nats-py's own parser."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client as NatsClient
from nats.errors import ProtocolError
from nats.protocol import command
from nats.protocol.parser import Parser

from todoku.broker.nats_wire import Headers, Message, MessageParser, ReplyInbox, publication

pytestmark = pytest.mark.anyio

Taken = tuple[int, str, str, bytes, bytes]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Theirs:
    """Record what nats-py's parser passes to its client."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.pings = 0
        self.parser = Parser(self)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.taken.append((sid, subject.decode(), reply.decode(), data, headers or b""))

    async def _process_ping(self) -> None:
        self.pings += 1


class Ours:
    """Record what our parser passes on."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []
        self.pings = 0
        self.parser = MessageParser(self)  # type: ignore[arg-type]

    def dispatch(self, sid: int, message: Message) -> None:
        raw = message.headers._raw
        self.taken.append((sid, message.subject, message.reply, message.body, raw))

    async def _process_ping(self) -> None:
        self.pings += 1


words = st.text("abc.$_19", min_size=1, max_size=8)
bodies = st.binary(max_size=40) | st.just(b"MSG a 1 3\r\n") | st.just(b"x" * 5_000)
headers = st.none() | st.just(b"NATS/1.0\r\nName: value\r\n\r\n") | st.just(b"NATS/1.0 404\r\n\r\n")


@st.composite
def arrivals(draw: st.DrawFn) -> bytes:
    """Generate a message as a server sends it, or a ping."""
    if draw(st.integers(0, 4)) == 0:
        return b"PING\r\n"
    subject, reply = draw(words), draw(st.just("") | words)
    sid, body, head = draw(st.integers(1, 99)), draw(bodies), draw(headers)
    place = f"{subject} {sid} {reply} " if reply else f"{subject} {sid} "
    if head is None:
        return f"MSG {place}{len(body)}\r\n".encode() + body + b"\r\n"
    sizes = f"{len(head)} {len(head) + len(body)}"
    return f"HMSG {place}{sizes}\r\n".encode() + head + body + b"\r\n"


@given(stream=st.lists(arrivals(), max_size=6).map(b"".join), data=st.data())
def test_messages_are_parsed_as_by_nats_py_however_they_are_split(
    stream: bytes, data: st.DataObject
) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    ours, theirs = Ours(), Theirs()
    for piece in pieces:
        run(ours.parser.parse(piece))
        run(theirs.parser.parse(piece))
    assert ours.taken == theirs.taken
    assert ours.pings == theirs.pings


def run(coroutine: Any) -> None:
    """Run a coroutine that never waits."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize(
    "garbage",
    [b"MSG a 1 x\r\n", b"HMSG a 1 y 2\r\n", b"MSG\r\n", b"what?\r\n", b"MSG \xff 1 0\r\n\r\n"],
)
async def test_invalid_frames_raise_protocol_errors(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Ours().parser.parse(garbage)


async def test_reset_discards_incomplete_frames() -> None:
    ours = Ours()
    await ours.parser.parse(b"MSG a 1 5\r\nab")
    ours.parser.reset()
    await ours.parser.parse(b"MSG b 2 1\r\nx\r\n")
    assert ours.taken == [(2, "b", "", b"x", b"")]


def test_publication_equals_the_command_of_nats_py() -> None:
    assert publication("a.b", b"body") == command.pub_cmd("a.b", "", b"body")
    assert publication("a.b", b"body", "r.1") == command.pub_cmd("a.b", "r.1", b"body")
    head = b"NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n"
    ours = publication("a.b", b"body", "r.1", "A: 1\r\nB: 2\r\n")
    assert ours == command.hpub_cmd("a.b", "r.1", head, b"body")


def test_exception_in_a_handler_does_not_stop_the_parser() -> None:
    def fail(_: Message) -> None:
        raise RuntimeError

    ReplyInbox(fail).dispatch(Message("a", "", b"", Headers(b"")))


@pytest.mark.parametrize(
    ("raw", "status", "fields"),
    [
        (b"", "", {}),
        (b"NATS/1.0\r\n\r\n", "", {}),
        (b"NATS/1.0 503\r\n\r\n", "503", {}),
        (b"NATS/1.0 404 No Messages\r\n\r\n", "404", {}),
        (b"NATS/1.0 409 Exceeded\r\nNats-Pending: 7\r\n\r\n", "409", {"Nats-Pending": "7"}),
        (
            "NATS/1.0\r\nName:\t a: b \r\nLast: 届く\r\n\r\n".encode(),
            "",
            {"Name": "a: b", "Last": "届く"},
        ),
    ],
)
def test_headers_contain_a_status_and_fields(
    raw: bytes, status: str, fields: dict[str, str]
) -> None:
    headers = Headers(raw)
    assert headers.status == status
    assert dict(headers) == fields
    assert bool(headers) == bool(fields)


async def test_headers_equal_those_of_nats_py() -> None:
    raw = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 9\r\n\r\n"
    theirs = await NatsClient()._process_headers(raw)
    ours = Headers(raw)
    assert theirs == {"Status": ours.status, "Description": "Idle Heartbeat", **ours}
    assert ours.status_line == "100 Idle Heartbeat"

"""Connections of hostile and careless clients: what is bounded, refused and served."""

import asyncio
import shutil
import socket

import pytest

from todoku.web import BoundedHttpProtocol, Call, Reply
from web.edge import listening
from web.raw import BODY, CHUNKED, LIVEZ, POST, connected, echo_app, receive_all, statuses

pytestmark = pytest.mark.anyio

CLOSE = b"Connection: close\r\n\r\n"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of time that a test can wait for."""
    for name in ("header", "body", "write"):
        monkeypatch.setattr(BoundedHttpProtocol, f"{name}_seconds_max", 0.2)
    monkeypatch.setattr(BoundedHttpProtocol, "check_seconds", 0.05)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[BoundedHttpProtocol]:
    """The connections that the server accepts."""
    protocols: list[BoundedHttpProtocol] = []
    connection_made = BoundedHttpProtocol.connection_made

    def note(protocol: BoundedHttpProtocol, transport: asyncio.Transport) -> None:
        protocols.append(protocol)
        connection_made(protocol, transport)

    monkeypatch.setattr(BoundedHttpProtocol, "connection_made", note)
    return protocols


async def send_until_cut(writer: asyncio.StreamWriter, part: bytes, bytes_max: int) -> int:
    """Send a part again and again until the server closes; return how much was sent."""
    sent = 0
    try:
        while sent < bytes_max:
            writer.write(part)
            await asyncio.wait_for(writer.drain(), 10)
            sent += len(part)
    except ConnectionError:
        pass
    return sent


# 11. Trailers


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"0\r\n", b"T: %b\r\n" % (b"x" * 1000)),
        (b"0\r\n", b"T: v\r\n" * 200),
        (b"0\r\nT: ", b"x" * 1000),
        (b"0\r\n", b"t" * 1000),
        (b"1;", b"e" * 1000),
        (b"1;e=", b"v" * 1000),
        (b'1;e="', b"v" * 1000),
        (b"", b"0" * 1000),
    ],
    ids=["large", "many", "value", "name", "extension", "ext-value", "ext-quoted", "zeros"],
)
async def test_endless_trailers_and_chunk_extensions_are_cut(begin: bytes, part: bytes) -> None:
    async with connected() as (_, writer):
        writer.write(LIVEZ + CHUNKED + begin)
        sent = await send_until_cut(writer, part, 30 * 2**20)
        assert sent < 20 * 2**20  # What the kernel buffers, and what is dropped before closing.


async def test_trailers_do_not_become_headers() -> None:
    request = POST.replace(b"application/json", b"text/plain") + CHUNKED
    trailers = b"c\r\n%b\r\n0\r\nContent-Type: application/json\r\nHost: there\r\n\r\n" % BODY
    assert statuses(await receive_all(request, trailers, pause=0.05)) == [415]
    assert statuses(await receive_all(request + trailers)) == [415]


async def test_request_with_trailers_is_served_and_connection_is_kept() -> None:
    chunked = POST + CHUNKED + b"c\r\n%b\r\n0\r\nChecksum: 1\r\nHost: there\r\n\r\n" % BODY
    assert statuses(await receive_all(chunked + LIVEZ + CLOSE)) == [200, 200]


async def test_body_in_chunks_of_one_byte_is_accepted() -> None:
    body = b'{"text":"%b"}' % (b"x" * 100_000)
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    request = POST + b"Connection: close\r\n" + CHUNKED + chunks + b"0\r\n\r\n"
    assert statuses(await receive_all(request)) == [200]


# 12. Pipelines


async def test_unread_pipeline_is_bounded(made: list[BoundedHttpProtocol]) -> None:
    async with connected() as (reader, writer):
        writer.write(LIVEZ + b"\r\n")
        await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 10)
        writer.transport.pause_reading()
        for _ in range(300):
            writer.write((LIVEZ + b"\r\n") * 1000)
            assert len(made[0].pipeline) <= BoundedHttpProtocol.pipeline_max + 160
            assert len(made[0]._unparsed) <= 2**19
            await asyncio.wait((asyncio.ensure_future(writer.drain()),), timeout=0.01)
        # The server reads no more, so most of it is still here.
        assert writer.transport.get_write_buffer_size() > 2**20
        writer.transport.abort()


async def test_long_pipeline_is_answered_in_order_and_completely() -> None:
    count = 5000
    requests = [POST + b"Content-Length: 15\r\n\r\n" + b'{"text":"%04d"}' % n for n in range(count)]
    async with connected() as (reader, writer):
        sending = asyncio.ensure_future(
            send_until_cut(writer, b"".join(requests) + LIVEZ + CLOSE, 1)
        )
        received = await asyncio.wait_for(reader.read(), 60)
        await sending
    assert statuses(received) == [200] * (count + 1)
    texts = [int(part[:4]) for part in received.split(b'{"text":"')[1:]]
    assert texts == list(range(count))


async def test_half_closed_client_with_long_pipeline_receives_all_responses() -> None:
    async with connected() as (reader, writer):
        writer.write((LIVEZ + b"\r\n") * 1000)
        writer.write_eof()
        received = await asyncio.wait_for(reader.read(), 30)
    assert statuses(received) == [200] * 1000


# 13. Upgrades

UPGRADES = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"connection: keep-alive, UPGRADE\r\nupgrade: TLS/1.2, h2c\r\n",
]


@pytest.mark.parametrize("upgrade", UPGRADES, ids=["h2c", "websocket", "tls"])
@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["one part", "several"])
async def test_upgrade_is_ignored_and_its_body_is_no_request(upgrade: bytes, pause: float) -> None:
    smuggled = LIVEZ + b"\r\n"
    head = POST + upgrade + b"Content-Length: %d\r\n\r\n" % len(smuggled)
    received = await receive_all(head, smuggled, LIVEZ + CLOSE, pause=pause)
    assert statuses(received) == [400, 200]  # The body is no JSON, and nothing else.
    head = POST + upgrade + b"Content-Length: %d\r\n\r\n" % len(BODY)
    received = await receive_all(
        head,
        BODY,
        POST + upgrade,
        CHUNKED,
        b"c\r\n",
        BODY,
        b"\r\n0\r\n\r\n",
        LIVEZ + upgrade + b"\r\n",
        LIVEZ + CLOSE,
        pause=pause,
    )
    assert statuses(received) == [200, 200, 200, 200]


async def test_upgrade_after_pipelined_requests_is_served() -> None:
    request = LIVEZ + UPGRADES[0] + b"\r\n"
    assert statuses(await receive_all(LIVEZ + b"\r\n" + request * 3 + LIVEZ + CLOSE)) == [200] * 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_with_http2_is_served() -> None:
    async with listening(echo_app()) as (host, port):
        for extra in ([], ["--json", BODY.decode()]):
            path = "echo" if extra else "livez"
            curl = await asyncio.create_subprocess_exec(
                "curl",
                "--http2",
                "-sS",
                "-w",
                " %{http_code} %{http_version}",
                *extra,
                f"http://{host}:{port}/{path}",
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await asyncio.wait_for(curl.communicate(), 20)
            assert out.endswith(b" 200 1.1"), out


async def test_connect_is_refused() -> None:
    received = await receive_all(
        b"CONNECT here:80 HTTP/1.1\r\nHost: here\r\n\r\n" + LIVEZ + b"\r\n"
    )
    assert statuses(received) == [405]


# 14. Slow clients


@pytest.mark.usefixtures("quick")
async def test_unread_body_must_be_completed_in_time() -> None:
    async with connected() as (reader, writer):
        writer.write(LIVEZ + b"Content-Length: 1000\r\n\r\n")
        received = b""
        async with asyncio.timeout(10):
            while part := await _read_while_dripping(reader, writer):
                received += part
    assert statuses(received) == [200]


async def _read_while_dripping(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, drip: bytes = b"x"
) -> bytes:
    """Return what is received; until then, send a byte now and then."""
    reading = asyncio.ensure_future(reader.read(65536))
    while not reading.done():
        writer.write(drip)
        await asyncio.wait((reading,), timeout=0.02)
    try:
        return reading.result()
    except ConnectionError:
        return b""


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("drip", [b"x", b"\r\n"], ids=["headers", "blank lines"])
async def test_headers_that_drip_end_the_connection(drip: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(LIVEZ + b"\r\n")  # An idle connection is no different.
        head = await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 10)
        assert statuses(head) == [200]
        received = b""
        async with asyncio.timeout(10):
            while part := await _read_while_dripping(reader, writer, drip):
                received += part
    assert b"HTTP/1.1 200" not in received


@pytest.mark.usefixtures("quick")
async def test_client_that_reads_nothing_is_disconnected(made: list[BoundedHttpProtocol]) -> None:
    async with connected() as (reader, writer):
        writer.write(LIVEZ + b"\r\n")
        await asyncio.wait_for(reader.readuntil(b'{"status":"ok"}'), 10)
        writer.transport.pause_reading()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /static/rapidoc-min.js HTTP/1.1\r\nHost: here\r\n\r\n"
        writer.write(request * 100)
        async with asyncio.timeout(20):
            while not made[0].transport.is_closing():  # noqa: ASYNC110 - nothing signals it
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quick")
async def test_client_that_keeps_its_end_open_after_close_is_disconnected() -> None:
    async with connected() as (reader, writer):
        writer.write(b"not http\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 10)
        assert statuses(received) == [400]
        sent = await send_until_cut(writer, b"x" * 1000, 2**30)
        assert sent < 2**30


@pytest.mark.usefixtures("quick")
async def test_slow_handler_is_not_cut() -> None:
    begun, proceed = asyncio.Event(), asyncio.Event()

    async def wait(call: Call) -> Reply:
        begun.set()
        await proceed.wait()
        return Reply(200, call.body)

    async with connected(echo_app(wait)) as (reader, writer):
        writer.write(POST + b"Content-Length: 12\r\n\r\n" + BODY)
        await asyncio.wait_for(begun.wait(), 10)
        await asyncio.sleep(0.5)  # Longer than all bounds.
        proceed.set()
        head = await asyncio.wait_for(reader.readuntil(BODY), 10)
    assert statuses(head) == [200]


# 15. Heads that are refused


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (LIVEZ + b"Expect: x\r\n\r\n", 417),
        (LIVEZ + b"Expect: 100-continue, x\r\n\r\n", 417),
        (LIVEZ.replace(b"/1.1", b"/2.0") + b"\r\n", 505),
        (LIVEZ.replace(b"/1.1", b"/1.2") + b"\r\n", 505),
        (LIVEZ.replace(b"/1.1", b"/3.0") + b"\r\n", 505),
        (LIVEZ.replace(b"/1.1", b"/0.9") + b"\r\n", 505),
        (b"GET /livez\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (LIVEZ + b"X: a\r\n folded\r\n\r\n", 400),
        (LIVEZ + b" X: a\r\n\r\n", 400),
        (LIVEZ + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (LIVEZ + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (LIVEZ + b"Content-Length: 1, 1\r\n\r\na", 400),
        (LIVEZ + b"Content-Length: +1\r\n\r\na", 400),
        (LIVEZ + b"Content-Length: -1\r\n\r\n", 400),
        (LIVEZ + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (LIVEZ + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (LIVEZ + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n", 400),
        (LIVEZ + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (LIVEZ + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (LIVEZ + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (LIVEZ + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
        (b"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\nHost: here\n\n", 400),
        (LIVEZ + b"X: a\rY: b\r\n\r\n", 400),
        (LIVEZ + b"X: a\x00b\r\n\r\n", 400),
        (LIVEZ + b"X : a\r\n\r\n", 400),
        (LIVEZ + b": a\r\n\r\n", 400),
        (LIVEZ + b"X\r\n\r\n", 400),
        (b"get /livez HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (b"GET livez HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (b"GET /li vez HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (LIVEZ + b"X: a\r\n" * 100 + b"\r\n", 431),
    ],
)
async def test_ambiguous_or_unsupported_head_is_refused_and_closes(
    head: bytes, status: int
) -> None:
    received = await receive_all(head + LIVEZ + b"\r\n")
    assert statuses(received) == [status]
    assert b"application/problem+json" in received
    assert b"onnection: close\r\n" in received


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://here/livez", 200),
        (b"http://elsewhere:80/livez?", 200),
        (b"http://here", 200),
        (b"http://here?x=1", 200),
        (b"http://here/nothing?x=1", 404),
        (b"//here/livez", 404),
        (b"/livez#fragment", 200),
        (b"/%6Civez", 200),
        (b"/livez%0A", 404),
        (b"/livez%00", 404),
        (b"/%FF%FE", 404),
        (b"/../livez", 404),
        (b"/livez/", 200),
        (b"/./livez", 404),
    ],
)
async def test_targets_of_any_form_are_served_or_unknown(target: bytes, status: int) -> None:
    head = b"GET %b HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" % target
    assert statuses(await receive_all(head)) == [status]


@pytest.mark.parametrize(
    "chunks",
    [b"1\na\n0\n\n", b"0x1\r\na\r\n", b"F" * 17 + b"\r\n", b"1\r\nab\r\n", b"-1\r\n", b"1 \r\n"],
)
async def test_malformed_chunks_are_refused_without_waiting(chunks: bytes) -> None:
    assert statuses(await receive_all(POST + CHUNKED + chunks)) == [400]
    # The response to the request was sent already: nothing may follow it.
    assert statuses(await receive_all(LIVEZ + CHUNKED, chunks, pause=0.05)) == [200]


async def test_refusal_comes_after_responses_to_earlier_requests() -> None:
    proceed = asyncio.Event()

    async def answer(call: Call) -> Reply:
        await proceed.wait()
        return Reply(200, call.body)

    good = POST + b"Content-Length: 12\r\n\r\n" + BODY
    for bad in (b"not http\r\n\r\n", POST + CHUNKED + b"xyz\r\n", LIVEZ + b"X: " + b"x" * 80_000):
        proceed.clear()
        async with connected(echo_app(answer)) as (reader, writer):
            writer.write(good * 2 + bad)
            await writer.drain()
            await asyncio.sleep(0.05)
            proceed.set()
            received = await asyncio.wait_for(reader.read(), 10)
        assert statuses(received)[:2] == [200, 200]
        assert statuses(received)[2:] in ([400], [431])


async def test_expected_100_continue_is_sent() -> None:
    async with connected() as (reader, writer):
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 12\r\n\r\n")
        assert (
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        writer.write(BODY)
        assert statuses(await asyncio.wait_for(reader.readuntil(BODY), 10)) == [200]


async def test_body_that_is_too_large_is_refused_before_it_is_asked_for() -> None:
    """Who waits for 100 Continue is told at once."""
    received = await receive_all(
        POST + b"Expect: 100-continue\r\nContent-Length: 2000000000\r\n\r\n"
    )
    assert statuses(received) == [413]

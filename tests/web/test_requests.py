"""Parsing of requests: content type, size, duration and JSON."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from starlette.types import ASGIApp

from todoku.database import Database
from todoku.identity import OPEN
from todoku.web import (
    Api,
    Backend,
    BoundedHttpProtocol,
    Call,
    Limits,
    Operation,
    Reply,
    SuccessResponse,
    application,
)
from web.edge import JSON, RecordingProcess, client, listening, run_inline

pytestmark = pytest.mark.anyio

BYTES_MAX = 1000
Handle = Callable[[Call], Awaitable[Reply]]


class Echo(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A body to echo."""

    text: str
    note: str | None = None
    data: dict[str, Any] = {}


async def echo(call: Call) -> Reply:
    return Reply(200, call.body)


def echo_app(handle: Handle = echo, **limits: Any) -> ASGIApp:
    """Return an application with an operation that echoes its body, and one that takes none."""
    responses = [SuccessResponse(status=200, description="The body of the request.", content=Echo)]
    operations = [
        Operation(
            id=path,
            method="POST",
            path=f"/{path}",
            scope=OPEN,
            summary="Echo the body",
            handle=handle,
            body=body,
            responses=responses,
        )
        for path, body in (("echo", Echo), ("bare", None))
    ]
    backend = Backend(
        process=RecordingProcess(lambda _: None), database=Database.in_memory(), run_read=run_inline
    )
    api = Api(title="Echo", description="", operations=operations)
    return application(api, backend, limits=Limits(body_bytes_max=BYTES_MAX, **limits))


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(echo_app()) as http:
        yield http


def slug(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["type"].removeprefix("/problems/")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/JSON",
        "application/json;",
        "application/json ; charset=utf8",
        "application/json; charset=latin-1",
        "application/json;profile=x;v=1",
    ],
)
async def test_json_content_type_is_accepted(http: httpx.AsyncClient, content_type: str) -> None:
    reply = await http.post(
        "/echo", content=b'{"text": "x"}', headers={"Content-Type": content_type}
    )
    assert (reply.status_code, reply.json()) == (200, {"text": "x"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json, text/plain"},
        {"Content-Type": "application/json+x"},
        {"Content-Type": "text/plain; application/json"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
async def test_other_content_type_returns_415(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    reply = await http.post("/echo", content=b'{"text": "x"}', headers=headers)
    assert slug(reply) == (415, "unsupported-media-type")
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("body", [b"", b"{}", b" {\n} "])
async def test_operation_without_a_body_takes_an_empty_one(
    http: httpx.AsyncClient, body: bytes
) -> None:
    async def one_part() -> AsyncIterator[bytes]:
        yield body

    for content in (body, one_part()):
        reply = await http.post("/bare", content=content)
        assert (reply.status_code, reply.json()) == (200, None)


@pytest.mark.parametrize("body", [b'{"note": "x"}', b"[]", b"x", b"\xff"])
@pytest.mark.parametrize("headers", [{}, JSON])
async def test_operation_without_a_body_refuses_one(
    http: httpx.AsyncClient, body: bytes, headers: dict[str, str]
) -> None:
    reply = await http.post("/bare", content=body, headers=headers)
    assert slug(reply) == (422, "invalid-body")
    reply = await http.post("/bare", content=body * (BYTES_MAX + 1), headers=headers)
    assert slug(reply) == (413, "body-too-large")


async def test_unknown_parameter_is_refused_as_such(http: httpx.AsyncClient) -> None:
    problem = (await http.post("/bare?colour=red")).json()
    assert problem["detail"] == "colour: Unknown parameter: remove it, or correct its name."


async def in_parts(size: int) -> AsyncIterator[bytes]:
    for _ in range(size):
        yield b" "


@pytest.mark.parametrize("parts", [False, True], ids=["announced", "in chunks"])
async def test_body_over_limit_returns_413(http: httpx.AsyncClient, parts: bool) -> None:
    def body(size: int) -> Any:
        return in_parts(size) if parts else b" " * size

    # Blanks alone are not JSON, which is detected only after all of them are read.
    reply = await http.post("/echo", content=body(BYTES_MAX), headers=JSON)
    assert slug(reply) == (400, "malformed-json")
    reply = await http.post("/echo", content=body(BYTES_MAX + 1), headers=JSON)
    assert slug(reply) == (413, "body-too-large")
    assert str(BYTES_MAX) in reply.json()["detail"]
    assert reply.headers["connection"] == "close"


async def test_duplicate_parameter_is_refused(http: httpx.AsyncClient) -> None:
    reply = await http.post("/echo?a=1&a=2", json={"text": "x"})
    assert slug(reply) == (400, "invalid-parameter")
    assert reply.json()["errors"][0]["parameter"] == "a"


async def test_incomplete_body_returns_408_and_closes_connection() -> None:
    async with listening(echo_app(body_seconds_max=0.05)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"POST /echo HTTP/1.1\r\nHost: testserver\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"text":'
        )
        answer = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"/problems/request-too-slow" in answer


@pytest.mark.parametrize(
    ("sent", "answer"), [(b"", b""), (b"POST /echo HTTP/1.1\r\nHost: tests", b"HTTP/1.1 408 ")]
)
async def test_incomplete_headers_are_refused_after_limit(
    sent: bytes, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_seconds_max", 0.05)
    monkeypatch.setattr(BoundedHttpProtocol, "check_seconds", 0.02)
    async with listening(echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        received = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()
    assert received[:13] == answer


async def test_response_slower_than_header_limit_is_delivered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BoundedHttpProtocol, "header_seconds_max", 0.05)
    too_late = asyncio.Event()
    end_slow_headers = BoundedHttpProtocol._end_slow_headers
    monkeypatch.setattr(BoundedHttpProtocol, "check_seconds", 0.02)

    def note(protocol: BoundedHttpProtocol) -> None:
        end_slow_headers(protocol)
        too_late.set()

    async def answer_late(call: Call) -> Reply:
        await asyncio.wait_for(too_late.wait(), timeout=10)
        return Reply(200, call.body)

    monkeypatch.setattr(BoundedHttpProtocol, "_end_slow_headers", note)
    body = b'{"text":"x"}'
    request = (
        b"POST /echo HTTP/1.1\r\nHost: testserver\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with listening(echo_app(answer_late)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        # The next request begins while this one is being answered, and stays incomplete.
        writer.write(request + request[:20])
        answer = await asyncio.wait_for(reader.readuntil(body), timeout=10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_endless_header_returns_431() -> None:
    async with listening(echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /livez HTTP/1.1\r\nHost: here\r\nX: " + b"a" * 70_000)
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"type":"/problems/headers-too-large"' in answer
        writer.close()


@pytest.mark.parametrize(("header_bytes", "status"), [(60_000, b"404"), (66_000, b"431")])
async def test_headers_in_one_chunk_are_bounded(header_bytes: int, status: bytes) -> None:
    async with listening(echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(
            b"GET /nothing HTTP/1.1\r\nHost: here\r\nX: " + b"a" * header_bytes + b"\r\n\r\n"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.close()
    assert head.startswith(b"HTTP/1.1 " + status)


async def test_body_in_same_chunk_does_not_count_as_headers() -> None:
    async with listening(echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        body = b'{"text":"hello"}'
        for _ in range(2):
            writer.write(
                b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
                + b"X: "
                + b"a" * 40_000
                + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
                + body
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 200 ")
            await reader.readexactly(len(body))
        writer.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (b"Content-Type: text/plain\r\nContent-Length: 3000000", b"415"),
        (b"Content-Type: application/json\r\nContent-Length: 3000000", b"413"),
        (b"Content-Type: application/json\r\nTransfer-Encoding: chunked", b"413"),
    ],
)
async def test_client_that_sends_whole_refused_body_receives_response(
    headers: bytes, status: bytes
) -> None:
    piece = b"x" * 30_000
    if b"chunked" in headers:
        piece = b"%x\r\n%b\r\n" % (len(piece), piece)
    async with listening(echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /echo HTTP/1.1\r\nHost: here\r\n" + headers + b"\r\n\r\n")
        for _ in range(100):
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), 10)
        if b"chunked" in headers:
            writer.write(b"0\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_bytes_that_are_not_http_get_problem() -> None:
    async with listening(echo_app()) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in answer
        assert b'"type":"/problems/malformed-request"' in answer
        writer.close()


BODY = b'{"text":"x"}'
POST = (
    b"POST /echo HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


async def until_closed(sent: bytes, *, eof: bool = False, handle: Handle = echo) -> bytes:
    """Return all responses until the server closes the connection."""
    async with listening(echo_app(handle)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(sent)
        if eof:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), timeout=10)
        writer.close()
    return answer


@pytest.mark.parametrize("requests", [1, 3])
async def test_half_closed_client_receives_all_responses(requests: int) -> None:
    async def answer_later(call: Call) -> Reply:
        await asyncio.sleep(0)
        return Reply(200, call.body)

    answers = await until_closed(POST * requests, eof=True, handle=answer_later)
    assert answers.count(b"HTTP/1.1 200 ") == answers.count(BODY) == requests
    assert answers.count(b"connection: close") == 1


async def test_incomplete_request_at_eof_gets_no_response() -> None:
    assert await until_closed(POST[:-1], eof=True) == b""


@pytest.mark.parametrize(
    ("version", "hosts", "allowed"),
    [
        ("1.1", ["here"], True),
        ("1.1", [""], True),
        ("1.1", ["[::1]:8080"], True),
        ("1.1", ["not a host"], False),
        ("1.1", [], False),
        ("1.1", ["here", "here"], False),
        ("1.0", [], True),
        ("1.0", ["here", "there"], False),
    ],
)
async def test_request_needs_exactly_one_valid_host(
    version: str, hosts: list[str], allowed: bool
) -> None:
    head = f"GET /livez HTTP/{version}\r\n" + "".join(f"Host: {host}\r\n" for host in hosts)
    answer = await until_closed(f"{head}Connection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 " if allowed else b"HTTP/1.1 400 ")
    assert allowed or b'"type":"/problems/malformed-request"' in answer


async def test_pipelined_request_without_host_is_refused_after_earlier_responses() -> None:
    answers = await until_closed(POST + POST.replace(b"Host: here\r\n", b"") + POST)
    assert answers.count(b"HTTP/1.1 ") == 2
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answers


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"text": "x", "text": "x"}', "text"),
        ('{"text": "a:b", "text": "x"}', "text"),
        ('{"text": "x", "text": "a\\u003ab"}', "text"),
        ('{"text": "x", "te\\u0078t": "x"}', "text"),
        ('{"text": "x", "text" : "y"}', "text"),
        ('{"text": "x", "data": {"y": "x", ":b": 1, ":b": 1}}', ":b"),
        ('{"text": "x", "note": null, "note": null}', "note"),
        ('{"text": "x", "note": "y", "note": "y"}', "note"),
        ('{"text": "x", "data": {"a": [{"b": 1, "b": 2}]}}', "b"),
        (f'{{"text": "x", "data": {{"c": {"9" * 500}, "c": 1}}}}', "c"),
        ('{"text": "x", "data": {"": 1, "": 2}}', ""),
    ],
)
async def test_duplicate_json_name_is_refused(
    http: httpx.AsyncClient, body: str, name: str
) -> None:
    reply = await http.post("/echo", content=body, headers=JSON)
    assert slug(reply) == (422, "invalid-body")
    assert reply.json()["detail"].startswith(f"{name}: Given more than once")


@pytest.mark.parametrize(
    "body",
    [
        '{"text": "a:b"}',
        '{"text": "a\\u003ab"}',
        '{"text": "x", "note": ""}',
        '{"text": "x", "note": null, "data": {}}',
        f'{{"text": "x", "data": {{"c": -{"9" * 300}.5e1}}}}',
        '{"text": "x", "note": "text:", "data": {"text": {"text": "text"}}}',
    ],
)
async def test_same_json_name_in_different_objects_is_accepted(
    http: httpx.AsyncClient, body: str
) -> None:
    assert (await http.post("/echo", content=body, headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("a=1&b=%FF", "b"), ("%E5%90%8D=%FF", "名"), ("a%ZZ=1", "a%ZZ"), ("%FF=1", "\ufffd")],
)
async def test_undecodable_parameter_is_named(
    http: httpx.AsyncClient, query: str, parameter: str
) -> None:
    reply = await http.post(f"/echo?{query}", json={"text": "x"})
    assert slug(reply) == (400, "invalid-parameter")
    assert [error["parameter"] for error in reply.json()["errors"]] == [parameter]


async def test_unencoded_address_is_refused_with_advice() -> None:
    answer = await until_closed("GET /echo?text=届く HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"--data-urlencode" in answer


async def test_more_than_100_parameters_are_refused(http: httpx.AsyncClient) -> None:
    reply = await http.post("/echo?" + "&".join(f"p{n}" for n in range(101)), json={"text": "x"})
    assert slug(reply) == (400, "invalid-parameter")
    assert "more than 100" in reply.json()["detail"]

"""Streams of server-sent events, served by a real server."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.types import ASGIApp

from todoku.database import Database
from todoku.identity import OPEN
from todoku.web import (
    Api,
    Backend,
    Call,
    EventStream,
    Operation,
    Problem,
    ServerSentEvent,
    SuccessResponse,
    application,
    event_streams,
)
from todoku.web.event_streams import StreamSlots, read_last_event_id
from todoku.web.health import Health
from web.edge import RecordingProcess, client, listening, run_inline

pytestmark = pytest.mark.anyio

Events = AsyncGenerator[ServerSentEvent, None]


def streaming_app(events: Callable[[], Events]) -> ASGIApp:
    """Return an application with an operation that streams events."""

    async def stream(call: Call) -> EventStream:
        return EventStream(events())

    operation = Operation(
        id="streamEvents",
        method="GET",
        scope=OPEN,
        path="/stream",
        summary="Stream events",
        handle=stream,
        responses=[
            SuccessResponse(
                status=200,
                description="The stream.",
                content=Health,
                media_type="text/event-stream",
            )
        ],
    )
    backend = Backend(
        process=RecordingProcess(lambda _: None),
        database=Database.in_memory(),
        run_read=run_inline,
    )
    return application(Api(title="", description="", operations=[operation]), backend)


@asynccontextmanager
async def stream_of(
    app: ASGIApp,
) -> AsyncIterator[asyncio.StreamReader]:
    """Request the stream; yield a reader after the headers."""
    async with listening(app) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert b"content-type: text/event-stream" in head
        yield reader
        writer.close()


async def test_stream_sends_each_event_and_ends() -> None:
    async def two() -> Events:
        yield ServerSentEvent(data={"text": "a\nb"}, event="said", id="1")
        yield ServerSentEvent(data=2)

    async with client(streaming_app(two)) as http:
        reply = await http.get("/stream")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text == 'retry: 1000\n\nid: 1\nevent: said\ndata: {"text":"a\\nb"}\n\ndata: 2\n\n'


async def test_head_of_a_stream_has_no_body_and_ends() -> None:
    async def endless() -> Events:
        await asyncio.Event().wait()
        yield ServerSentEvent(data=1)

    async with listening(streaming_app(endless)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"HEAD /stream HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        reply = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"content-type: text/event-stream" in reply
    assert reply.endswith(b"\r\n\r\n")


async def test_quiet_stream_sends_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "KEEP_ALIVE_SECONDS", 0.01)

    async def quiet() -> Events:
        yield ServerSentEvent(id="7")
        await asyncio.Event().wait()

    async with stream_of(streaming_app(quiet)) as reader:
        await asyncio.wait_for(reader.readuntil(b"id: 7\n\n"), 10)
        for _ in range(3):
            await asyncio.wait_for(reader.readuntil(b": keep-alive\n\n"), 10)


async def test_streams_beyond_the_limit_are_refused_until_one_ends() -> None:
    slots = StreamSlots(1)
    slots.require_free()
    with slots:
        with pytest.raises(Problem) as refused:
            slots.require_free()
        assert refused.value.kind.status == 503
        assert refused.value.headers["Retry-After"] == "5"
    slots.require_free()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([b""], None), ([b" "], None), ([b" 1.2 "], "1.2"), ([b"\xff"], "\xff")],
)
async def test_last_event_id_is_read(values: list[bytes], expected: str | None) -> None:
    assert read_last_event_id(values) == expected


async def test_several_last_event_ids_are_refused() -> None:
    with pytest.raises(Problem, match="once"):
        read_last_event_id([b"1", b"2"])


async def test_failing_stream_closes_connection_without_second_response() -> None:
    async def failing() -> Events:
        yield ServerSentEvent(data=1)
        raise RuntimeError("failed midway")

    async with stream_of(streaming_app(failing)) as reader:
        rest = await asyncio.wait_for(reader.read(), 10)
    assert rest.count(b"data: 1\n\n") == 1
    assert b"HTTP/1.1" not in rest
    assert b"problem" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_stream_that_fails_before_its_first_event_is_incomplete() -> None:
    async def failing() -> Events:
        raise RuntimeError("failed at once")
        yield ServerSentEvent(data=1)

    async with stream_of(streaming_app(failing)) as reader:
        rest = await asyncio.wait_for(reader.read(), 10)
    assert b"data" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


async def test_disconnected_client_ends_the_stream() -> None:
    ended = asyncio.Event()

    async def endless() -> Events:
        try:
            yield ServerSentEvent(data=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with listening(streaming_app(endless)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), 10)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 10)


async def test_shutdown_ends_open_streams_completely() -> None:
    ended = asyncio.Event()

    async def endless() -> Events:
        try:
            yield ServerSentEvent(data=1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with listening(streaming_app(endless)) as (host, port):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /stream HTTP/1.1\r\nHost: here\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"data: 1\n\n"), 10)
    # The server has stopped, without a limit on how long it waits for responses.
    assert ended.is_set()
    assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"0\r\n\r\n")
    writer.close()


async def test_document_names_the_media_type_of_a_stream() -> None:
    async def none() -> Events:
        return
        yield

    async with client(streaming_app(none)) as http:
        document = (await http.get("/openapi.json")).json()
    content = document["paths"]["/stream"]["get"]["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"]

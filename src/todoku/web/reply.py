"""Replies to requests: JSON documents, and streams of server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import msgspec
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from todoku.web.one_write import one_write

SHUTDOWN: Final = "todoku.shutdown"
"""Scope key: an `asyncio.Event` that the server sets when it stops."""

encode: Final = msgspec.json.Encoder().encode


class Reply:
    """A JSON response; an ASGI application."""

    __slots__ = ("_body", "_headers", "status")

    def __init__(self, status: int, content: Any, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self._body = encode(content)
        self._headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self._body)),
        ]
        for name, value in (headers or {}).items():
            self._headers.append((name.lower().encode(), value.encode("latin-1")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b"" if scope.get("method") == "HEAD" else self._body
        start = {"type": "http.response.start", "status": self.status, "headers": self._headers}
        with one_write(scope):
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": False})


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream (WHATWG HTML, section 9.2). `data` is encoded as JSON."""

    data: Any
    event: str | None = None
    id: str | None = None

    def encode(self) -> bytes:
        """Return the event as it is sent. JSON has no line breaks, so `data` is one line."""
        fields = {b"id": self.id, b"event": self.event}
        lines = [b"%b: %b\n" % (name, text.encode()) for name, text in fields.items() if text]
        return b"".join([*lines, b"data: ", encode(self.data), b"\n\n"])


class EventStream:
    """A response that streams server-sent events; an ASGI application.

    The stream ends with the iterator, when the client disconnects, or when the server shuts down.
    An error of the iterator closes the connection, so that the client connects again.
    """

    def __init__(self, events: AsyncGenerator[ServerSentEvent, None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shutdown = scope.get(SHUTDOWN) or asyncio.Event()
        response = StreamingResponse(
            _encode_until(shutdown, self._events),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )
        await response(scope, receive, send)


async def _encode_until(
    shutdown: asyncio.Event, events: AsyncGenerator[ServerSentEvent, None]
) -> AsyncGenerator[bytes, None]:
    """Yield encoded events until the generator ends or `shutdown` is set."""
    stopping = asyncio.ensure_future(shutdown.wait())
    upcoming: asyncio.Future[ServerSentEvent] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(anext(events))
            await asyncio.wait((upcoming, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not upcoming.done():
                return
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            yield event.encode()
    finally:
        stopping.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait((upcoming,))
        await events.aclose()

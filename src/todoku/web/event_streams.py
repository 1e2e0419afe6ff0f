"""Streams of server-sent events (WHATWG HTML, section 9.2).

A client that reads slowly is sent to slowly: what waits for it is at most what the server's buffer holds,
64 KiB and one event. One that reads nothing for `BoundedHttpProtocol.write_seconds_max` is cut.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import msgspec
from msgspec import UNSET
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from todoku.database import DatabaseError
from todoku.web.guard import RECHECK
from todoku.web.problems import TOO_MANY_STREAMS, UNAUTHENTICATED, Problem
from todoku.web.query import invalid_parameter
from todoku.web.reply import SHUTDOWN, encode

HEADER: Final = "Last-Event-ID"
MEDIA_TYPE: Final = "text/event-stream"

KEEP_ALIVE_SECONDS: Final = 15.0
"""How often a comment is sent while nothing happens: balancers close a connection without traffic."""

RETRY_MILLISECONDS: Final = 1_000
"""After how long a client is to connect again when a stream has ended."""

RECHECK_SECONDS: Final = 2.0
"""How often the credential of a stream is verified again."""

_BEGINNING: Final = b"retry: %d\n\n" % RETRY_MILLISECONDS
_KEEP_ALIVE: Final = b": keep-alive\n\n"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""No cache keeps a stream, and nginx passes it on as it comes."""


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream. `data` is encoded as JSON; without it, the client only notes the `id`."""

    data: Any = UNSET
    event: str | None = None
    id: str | None = None

    def encode(self) -> bytes:
        """Return the event as it is sent. JSON has no line breaks, so `data` is one line."""
        fields = {b"id": self.id, b"event": self.event}
        lines = [b"%b: %b\n" % (name, text.encode()) for name, text in fields.items() if text]
        if self.data is not UNSET:
            lines += [b"data: ", encode(self.data), b"\n"]
        return b"".join([*lines, b"\n"])


class StreamSlots:
    """How many streams a process has, and may have."""

    def __init__(self, count_max: int) -> None:
        self.count_max = count_max
        self.count = 0

    def require_free(self) -> None:
        """Raise `Problem` if no more streams may be opened."""
        if self.count >= self.count_max:
            raise Problem(
                TOO_MANY_STREAMS,
                f"{self.count} streams are open here, which is the maximum: connect again later, or read "
                "the events page by page.",
                headers={"Retry-After": "5"},
            )

    def __enter__(self) -> None:
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.count -= 1


class EventStream:
    """A response that streams server-sent events; an ASGI application.

    The stream ends with the iterator, when the client disconnects, when its credential is revoked or has
    expired, or when the server shuts down. An
    error of the iterator closes the connection. In each case the client connects again. While the
    stream lasts, it takes one of the `slots`.
    """

    def __init__(
        self,
        events: AsyncGenerator[ServerSentEvent, None],
        slots: AbstractContextManager[None] | None = None,
    ) -> None:
        self._events = events
        self._slots = slots or nullcontext()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await self._events.aclose()
            head = Response(media_type=MEDIA_TYPE, headers=_HEADERS)
            del head.headers["content-length"]
            await head(scope, receive, send)
            return
        shutdown = scope.get(SHUTDOWN) or asyncio.Event()
        body = _encode_until([shutdown.wait(), *_refused(scope)], self._events)
        response = StreamingResponse(body, media_type=MEDIA_TYPE, headers=_HEADERS)
        with self._slots:
            await response(scope, receive, send)


def _refused(scope: Scope) -> Iterator[Coroutine[Any, Any, Any]]:
    """Yield what ends when the credential of the request is not valid any more, if there is one."""
    recheck = scope.get(RECHECK)
    if recheck is not None:
        yield _until_refused(recheck)


async def _until_refused(recheck: Callable[[], Awaitable[Any]]) -> None:
    while True:
        await asyncio.sleep(RECHECK_SECONDS)
        try:
            await recheck()
        except Problem as problem:
            if problem.kind is UNAUTHENTICATED:
                return
        except DatabaseError:
            continue  # Nothing new is known of the keys.


async def _encode_until(
    ends: Sequence[Coroutine[Any, Any, Any]], events: AsyncGenerator[ServerSentEvent, None]
) -> AsyncGenerator[bytes, None]:
    """Yield encoded events until the generator or one of `ends` ends, and a comment from time to time."""
    stopping = [asyncio.ensure_future(each) for each in ends]
    upcoming: asyncio.Future[ServerSentEvent] | None = None
    try:
        yield _BEGINNING
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            await asyncio.wait(
                (upcoming, *stopping),
                timeout=KEEP_ALIVE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if any(each.done() for each in stopping):
                return
            if not upcoming.done():
                yield _KEEP_ALIVE
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield event.encode()
    finally:
        for each in stopping:
            each.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait((upcoming,))
        await events.aclose()


def read_last_event_id(values: Sequence[bytes]) -> str | None:
    """Return what the header Last-Event-ID says; None if it is absent or empty, as it is before the first
    event. Raises `Problem` if there are several."""
    if len(values) > 1:
        raise invalid_parameter(HEADER, "Given more than once: give it once.")
    return (values[0].decode("latin-1").strip() if values else "") or None

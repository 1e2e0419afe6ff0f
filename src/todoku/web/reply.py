"""Replies to requests: JSON documents."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
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

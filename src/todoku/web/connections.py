"""Connections of slow and half-open clients do not stay open for ever."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a time within which the headers of a request must be complete.

    uvicorn bounds only the pause between two requests. The time for a body is bounded where bodies
    are read, with an answer; a client that does not finish its headers is hung up on.
    """

    header_seconds_max: ClassVar[float] = 10.0

    _headers_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_headers()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_headers()

    def on_headers_complete(self) -> None:
        self._expect_nothing()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._expect_nothing()
        self._headers_due = self.loop.call_later(self.header_seconds_max, self._hang_up)

    def _expect_nothing(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()

    def _hang_up(self) -> None:
        # A request that is still being answered comes first; the client sent the next one early.
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:
            self._expect_headers()

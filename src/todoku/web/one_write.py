"""One write for the head and the body of a response.

uvicorn writes them one after the other, and uvloop passes each write to the kernel at once: two system
calls here, and two wakeups of the client (docs/decisions/0022-one-write-per-response.md).
"""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from starlette.types import Scope

ONE_WRITE: Final = "todoku.one_write"
"""Scope key: a context manager, within which all that is sent is written together."""


def one_write(scope: Scope) -> AbstractContextManager[None]:
    """Return a context within which what is sent to the client is written together, at its end."""
    context: AbstractContextManager[None] = scope.get(ONE_WRITE, _EACH_WRITE)
    return context


_EACH_WRITE: Final = nullcontext()


class CoalescingTransport:
    """A transport that keeps what it is given within a `with`, and writes it together at the end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._kept: list[bytes] | None = None
        self.is_closing = transport.is_closing

    def __enter__(self) -> None:
        self._kept = []

    def __exit__(self, *_: object) -> None:
        self._flush()

    def write(self, data: bytes) -> None:
        """Write the data, or keep them."""
        if self._kept is None:
            self._transport.write(data)
        else:
            self._kept.append(data)

    def write_eof(self) -> None:
        """Close the sending side after what is kept is written."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Close the connection after what is kept is written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        kept, self._kept = self._kept, None
        if kept and not self.is_closing():
            self._transport.write(b"".join(kept))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

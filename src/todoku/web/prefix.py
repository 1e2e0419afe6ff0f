"""Path prefix under which a proxy publishes the service.

A proxy that serves `/shop/orders/…` strips `/shop/orders` and sends it in `X-Forwarded-Prefix`. Then
links that start at the root need it back: Location, Link, and those of the pages.
"""

import re
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX: Final = "todoku.prefix"
"""Scope key: the path prefix, such as `/shop/orders`."""

_is_prefix = re.compile(rb"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]{1,64}){1,8}").fullmatch


class ForwardedPrefixMiddleware:
    """Put the header X-Forwarded-Prefix before paths in the headers Location and Link.

    Only for services that clients reach through a proxy which sets or removes this header.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-prefix"]
        prefix = values[0].rstrip(b"/") if len(values) == 1 else b""
        if not _is_prefix(prefix):
            await self._app(scope, receive, send)
            return
        scope[PREFIX] = prefix.decode()

        async def send_with_prefix(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [_with_prefix(name, value, prefix) for name, value in message["headers"]]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_prefix)


def _with_prefix(name: bytes, value: bytes, prefix: bytes) -> tuple[bytes, bytes]:
    if name == b"location" and value.startswith(b"/"):
        return name, prefix + value
    if name == b"link" and value.startswith(b"</"):
        return name, b"<" + prefix + value[1:]
    return name, value

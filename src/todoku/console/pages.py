"""The files of the page. It is one page: which part of it is shown follows from the path."""

from collections.abc import Awaitable
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from todoku.web.prefix import PREFIX
from todoku.web.problems import METHOD_NOT_ALLOWED, Problem

STATIC: Final = Path(__file__).parent / "static"

CONTENT_SECURITY_POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""The page runs its own files only, talks to the console only, and is in no frame."""

SECURITY_HEADERS: Final = [  # The server itself adds X-Content-Type-Options.
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
]

REVALIDATED: Final = (b"cache-control", b"no-cache")
"""Files are asked for again with their ETag: after an update no page mixes two versions."""


class SecurityHeadersMiddleware:
    """Add the headers that restrict what a browser does with a response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        def send_restricted(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [each for each in SECURITY_HEADERS if each[0] not in present]
                message = {**message, "headers": [*message["headers"], *added]}
            return send(message)

        await self._app(scope, receive, send_restricted)


class Files:
    """Serves `/static/…`; an ASGI application."""

    def __init__(self) -> None:
        self._files = StaticFiles(directory=STATIC)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        def send_revalidated(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], REVALIDATED]}
            return send(message)

        below = {**scope, "path": scope["path"].removeprefix("/static"), "root_path": ""}
        await self._files(below, receive, send_revalidated)


class Page:
    """Serves the page under every path that is not another resource; an ASGI application."""

    def __init__(self) -> None:
        self._html = (STATIC / "index.html").read_text(encoding="utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise Problem(METHOD_NOT_ALLOWED, "Use GET.", headers={"Allow": "GET, HEAD"})
        html = self._html.replace("{{base}}", scope.get(PREFIX, "") + "/")
        tag = f'"{sha256(html.encode()).hexdigest()[:20]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if Headers(scope=scope).get("if-none-match") == tag:
            await Response(status_code=304, headers=headers)(scope, receive, send)
        else:
            await HTMLResponse(html, headers=headers)(scope, receive, send)

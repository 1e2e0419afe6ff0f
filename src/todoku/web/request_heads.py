"""Checks of a request's head that the HTTP parser does not make."""

import re
from collections.abc import Sequence
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.web.problems import (
    CONTENT_TYPE,
    EXPECTATION_FAILED,
    HEADERS_TOO_LARGE,
    HTTP_VERSION_NOT_SUPPORTED,
    MALFORMED_REQUEST,
    NOT_IMPLEMENTED,
    Problem,
)
from todoku.web.reply import encode

Headers = Sequence[tuple[bytes, bytes]]

HEADER_BYTES_MAX: Final = 64 * 1024
HEADERS_MAX: Final = 100

TOO_LARGE: Final = Problem(
    HEADERS_TOO_LARGE, f"Send fewer or shorter headers: 64 KiB and {HEADERS_MAX} at most."
)
WRONG_VERSION: Final = Problem(HTTP_VERSION_NOT_SUPPORTED, HTTP_VERSION_NOT_SUPPORTED.advice)
WRONG_EXPECTATION: Final = Problem(EXPECTATION_FAILED, EXPECTATION_FAILED.advice)
WRONG_CODING: Final = Problem(NOT_IMPLEMENTED, NOT_IMPLEMENTED.advice)
CHUNKED_HTTP_1_0: Final = Problem(
    MALFORMED_REQUEST, "HTTP/1.0 has no Transfer-Encoding: send Content-Length."
)
WRONG_HOST: Final = Problem(
    MALFORMED_REQUEST, "Send the header Host, once only: a name, perhaps with a port."
)

CHECKED_HEADERS: Final = frozenset({b"host", b"transfer-encoding", b"expect"})

# RFC 9112, section 3.2; RFC 3986, section 3.2.2.
_is_host = re.compile(rb"[\w.~!$&'()*+,;=%:\[\]-]*").fullmatch


def find_fault(version: str, headers: Headers) -> Problem | None:
    """Return the problem with which a request is refused because of its head; None if it is valid."""
    if version not in ("1.1", "1.0"):
        return WRONG_VERSION
    if len(headers) > HEADERS_MAX:
        return TOO_LARGE
    hosts = 0
    for name, value in headers:
        if name not in CHECKED_HEADERS:
            continue
        if name == b"host":
            hosts += 1
            if not _is_host(value):
                return WRONG_HOST
        elif name == b"transfer-encoding":
            # RFC 9112, section 6.1: codings that are not understood, and HTTP/1.0.
            if value.lower() != b"chunked":
                return WRONG_CODING
            if version == "1.0":
                return CHUNKED_HTTP_1_0
        elif name == b"expect" and value.lower() != b"100-continue":
            return WRONG_EXPECTATION
    return None if hosts == 1 or (hosts == 0 and version == "1.0") else WRONG_HOST


def is_too_large(url: bytes, headers: Headers) -> bool:
    """Return whether the address and the headers are larger than 64 KiB together."""
    return len(url) + sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES_MAX


def without_upgrade(method: bytes, url: bytes, version: str, headers: Headers) -> bytes:
    """Return the head of a request without its wish to change the protocol (RFC 9110, section 7.8).

    A server may ignore the wish. The parser does not: it takes the body for the other protocol.
    """
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            options = [option.strip() for option in value.split(b",")]
            value = b", ".join(o for o in options if o.lower() != b"upgrade")
        if name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])


def to_origin_form(url: bytes) -> bytes:
    """Return the target of a request with a path: `http://here?x=1` is `http://here/?x=1`."""
    scheme, separator, rest = url.partition(b"://")
    if url.startswith(b"/") or not separator:
        return url
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
    remainder = rest[len(authority) :]
    path = remainder if remainder.startswith(b"/") else b"/" + remainder
    return b"%b://%b%b" % (scheme, authority, path)


def problem_app(problem: Problem) -> ASGIApp:
    """Return an application that answers a request with this problem and closes the connection."""
    body = encode(problem.details())
    headers = [
        (b"content-type", CONTENT_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        status = problem.kind.status
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return refuse

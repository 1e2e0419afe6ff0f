"""Requests as routes receive them, and replies."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from starlette.types import Receive, Scope, Send

from todoku.web.explanations import explain
from todoku.web.problems import (
    BODY_TOO_LARGE,
    INVALID_BODY,
    INVALID_PARAMETER,
    MALFORMED_JSON,
    REQUEST_TOO_SLOW,
    UNSUPPORTED_MEDIA_TYPE,
    InputError,
    Problem,
)

# The rest of a refused body would be parsed as the next request.
CLOSE_CONNECTION: Final = {"Connection": "close"}

DRAIN_SECONDS_MAX = 2.0
DRAIN_BYTES_MAX = 2**24
"""How much of a refused body is read and dropped before the response is sent."""

BODY_RECEIVED: Final = "todoku.body_received"
"""Scope key: set when the whole body was received before the application was called."""

IN_ONE_PIECE: Final = "todoku.in-one-piece"
"""Scope key: a context manager that makes the server write the parts of a reply together."""

PARAMETERS_MAX: Final = 100
NOT_ENCODED: Final = "Must be percent-encoded UTF-8, as curl writes it with -G --data-urlencode."

AS_IT_COMES: Final = nullcontext()

encode: Final = msgspec.json.Encoder().encode


class ClientDisconnected(Exception):
    """The client disconnected before its request was complete."""


class Body(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Base of JSON request bodies. Unknown fields and duplicate names are refused.

    `decode_body` detects duplicates by encoding the struct again, hence `omit_defaults`."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A parsed request: path parameters, and the query and body as the operation declares them, with
    the W3C Trace Context of its headers."""

    path: Mapping[str, str]
    query: Any
    body: Any
    traceparent: str | None


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
        with scope.get(IN_ONE_PIECE, AS_IT_COMES):
            await send(start)
            await send({"type": "http.response.body", "body": body, "more_body": False})


async def read_body(
    headers: Mapping[bytes, bytes],
    receive: Receive,
    *,
    bytes_max: int,
    seconds_max: float,
    complete: bool,
) -> bytes:
    """Return the whole body of a JSON request. `complete` means that it was received already.

    Raises `Problem` if the type is not JSON or the body is too large or too slow, and
    `ClientDisconnected`.
    """
    try:
        _require_json(headers)
        if int(headers.get(b"content-length", b"0")) > bytes_max:
            raise _too_large(bytes_max)
    except Problem:
        await _drain(receive)
        raise
    if complete:
        return await _receive_all(receive, bytes_max)
    try:
        async with asyncio.timeout(seconds_max):
            return await _receive_all(receive, bytes_max)
    except TimeoutError:
        raise Problem(
            REQUEST_TOO_SLOW,
            f"The body was not complete after {seconds_max:g} seconds: send the request again.",
            headers=CLOSE_CONNECTION,
        ) from None


async def _receive_all(receive: Receive, bytes_max: int) -> bytes:
    body, more = b"", True
    while more:
        part, more = await _receive_part(receive)
        if len(body) + len(part) > bytes_max:
            if more:
                await _drain(receive)
            raise _too_large(bytes_max)
        body = body + part if body else part
    return body


async def _receive_part(receive: Receive) -> tuple[bytes, bool]:
    """Return the next part of a body, and whether more follows."""
    message = await receive()
    if message["type"] != "http.request":
        raise ClientDisconnected
    return message.get("body", b""), message.get("more_body", False)


async def _drain(receive: Receive) -> None:
    """Read and drop the rest of a refused body: a client that is disconnected while it sends may
    see a reset connection instead of the response."""
    passed = 0
    with suppress(TimeoutError, ClientDisconnected):
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            more = True
            while more and passed < DRAIN_BYTES_MAX:
                part, more = await _receive_part(receive)
                passed += len(part)


def _too_large(bytes_max: int) -> Problem:
    return Problem(
        BODY_TOO_LARGE,
        f"The body is larger than {bytes_max} bytes, the maximum: send less at a time.",
        headers=CLOSE_CONNECTION,
    )


_is_json = re.compile(rb'application/json\s*(;\s*charset="?utf-8"?\s*)?', re.IGNORECASE).fullmatch


def _require_json(headers: Mapping[bytes, bytes]) -> None:
    content_type = headers.get(b"content-type", b"")
    if content_type != b"application/json" and not _is_json(content_type):
        found = f"not {content_type.decode('latin-1')!r}" if content_type else "which is missing"
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE,
            f"Send the body as JSON, with the header Content-Type: application/json, {found}.",
            headers=CLOSE_CONNECTION,
        )
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE,
            "Send the body uncompressed, without the header Content-Encoding.",
            headers=CLOSE_CONNECTION,
        )


def decode_body(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode the body. Raises `Problem`."""
    try:
        decoded = decoder.decode(body)
        # Each name has a colon: if the encoded struct has fewer, a name may have been duplicated.
        # Looking at the names takes several times as long. Bodies omit defaults
        # (`omit_defaults`), because encoded defaults would hide the loss.
        if body.count(b":") > encode(decoded).count(b":"):
            _require_names_once(body)
        return decoded
    except msgspec.ValidationError as error:
        advice, names = explain(error, decoder.type)
        pointer = "#" + "".join("/" + _escape(name) for name in names)
        fault = InputError(advice, pointer=pointer)
        raise Problem(INVALID_BODY, f"{pointer}: {advice}", errors=[fault]) from error
    except UnicodeDecodeError as error:
        raise Problem(MALFORMED_JSON, "The body is not UTF-8: encode it as UTF-8.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(
            MALFORMED_JSON, f"The body is not JSON: {error}. Send one JSON object."
        ) from error


def _require_names_once(body: bytes) -> None:
    """Raise `Problem` if an object in the body has duplicate names."""
    _names_once.decode(body.decode())


def _require_once(pairs: list[tuple[str, Any]]) -> None:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise Problem(
                INVALID_BODY, f"{name}: Given more than once in one object: give it once."
            )


_names_once: Final = json.JSONDecoder(object_pairs_hook=_require_once)


def _escape(name: str) -> str:
    """Escape a name for a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def decode_query(kind: type[Any], query_string: bytes) -> Any:
    """Decode the query string. Raises `Problem`."""
    pairs = _pairs(query_string)
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid_parameter(twice, "Given more than once: give it once.")
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        advice, path = explain(error, kind)
        raise invalid_parameter(path[0], advice) from error


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    parts = query_string.decode(errors="replace").split("&")
    if len(parts) > PARAMETERS_MAX:
        raise Problem(INVALID_PARAMETER, f"There are more than {PARAMETERS_MAX} parameters.")
    return [pair for part in parts for pair in _pair(part)]


def _pair(part: str) -> list[tuple[str, str]]:
    """Return a parameter and its value, or nothing for an empty part."""
    try:
        part.encode("ascii")
        return parse_qsl(part, keep_blank_values=True, errors="strict")
    except ValueError as error:
        name = unquote_plus(part.partition("=")[0])
        raise invalid_parameter(name, NOT_ENCODED) from error


def invalid_parameter(name: str, detail: str) -> Problem:
    """Return the problem that a parameter is invalid."""
    return Problem(
        INVALID_PARAMETER, f"{name}: {detail}", errors=[InputError(detail, parameter=name)]
    )


_is_traceparent = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch


def traceparent(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the request's W3C `traceparent` if it is valid."""
    value = headers.get(b"traceparent")
    return value.decode() if value is not None and _is_traceparent(value) else None

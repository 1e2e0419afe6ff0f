"""Reading and decoding of JSON request bodies."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec
from starlette.types import Receive

from todoku.web.explanations import explain
from todoku.web.problems import (
    BODY_TOO_LARGE,
    INVALID_BODY,
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
    """Base of JSON request bodies. Unknown fields are refused. Defaults are left out when it is encoded, so
    that a field of a newer version does not change the fingerprint of a request that was sent before."""


async def read_body(
    headers: Mapping[bytes, bytes],
    receive: Receive,
    *,
    bytes_max: int,
    seconds_max: float,
    complete: bool,
    any_type: bool = False,
) -> bytes:
    """Return the whole body of a request. `complete` means that it was received already.

    Raises `Problem` if the type is not JSON (with `any_type`, it is not looked at) or the body is too large
    or too slow, and `ClientDisconnected`.
    """
    try:
        if not any_type:
            _require_json(headers)
        if int(headers.get(b"content-length", b"0")) > bytes_max:
            raise _too_large(bytes_max)
    except Problem:
        # Who waits for 100 Continue has not sent the body, and would send it now.
        if headers.get(b"expect", b"").lower() != b"100-continue":
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
    dropped = 0
    with suppress(TimeoutError, ClientDisconnected):
        async with asyncio.timeout(DRAIN_SECONDS_MAX):
            more = True
            while more and dropped < DRAIN_BYTES_MAX:
                part, more = await _receive_part(receive)
                dropped += len(part)


def _too_large(bytes_max: int) -> Problem:
    return Problem(
        BODY_TOO_LARGE,
        f"The body is larger than {bytes_max} bytes, the maximum: send less at a time.",
        headers=CLOSE_CONNECTION,
    )


# RFC 8259, section 11: no parameter has a meaning. A charset neither: JSON is UTF-8.
_is_json = re.compile(rb"application/json[ \t]*(;.*)?", re.IGNORECASE).fullmatch


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


def require_no_body(received: bytes) -> None:
    """Raise `Problem` if there is a body: the operation takes none. An empty object counts as none, because
    many clients send one."""
    if b"".join(received.split()) not in (b"", b"{}"):
        raise Problem(INVALID_BODY, "This operation takes no body: send none, or {}.")


def decode_body(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """Decode the body. Raises `Problem`."""
    try:
        decoded = decoder.decode(body)
        _require_unique_names(body)
        return decoded
    except msgspec.ValidationError as error:
        advice, names = explain(error, decoder.type)
        pointer = "#" + "".join("/" + _escape(name) for name in names)
        input_error = InputError(advice, pointer=pointer)
        raise Problem(INVALID_BODY, f"{pointer}: {advice}", errors=[input_error]) from error
    except UnicodeDecodeError as error:
        raise Problem(MALFORMED_JSON, "The body is not UTF-8: encode it as UTF-8.") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(
            MALFORMED_JSON, f"The body is not JSON: {error}. Send one JSON object."
        ) from error


def _require_unique_names(body: bytes) -> None:
    """Raise `Problem` if an object has duplicate names: msgspec keeps the last without an error.

    Where nothing is escaped, a value that was dropped took its colon with it. So a body that has as
    many colons as what was kept of it has no duplicates; the others are read name by name.
    """
    kept = msgspec.json.encode(msgspec.json.decode(body))
    if b"\\" in body or body.count(b":") != kept.count(b":"):
        _decode_name_by_name(body.decode())


def _require_unique(pairs: list[tuple[str, Any]]) -> None:
    """Raise `Problem` if an object has duplicate names."""
    if len(dict(pairs)) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        name = next(name for name, count in counts.items() if count > 1)
        raise Problem(INVALID_BODY, f"{name}: Given more than once in one object: give it once.")


_decode_name_by_name: Final = json.JSONDecoder(
    object_pairs_hook=_require_unique,
    parse_int=str,  # Python's int refuses more than 4,300 digits.
    parse_float=str,
).decode


def _escape(name: str) -> str:
    """Escape a name for a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")

"""Send requests to JetStream's JSON API and decode the responses.

Source: docs.nats.io, "NATS API Reference". The requests are made here because nats-py has no field for
`allow_atomic`.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from todoku.broker.nats_link import Link, ServiceUnreachable
from todoku.broker.port import BrokerError, BrokerUnavailable, BrokerUnsuitable

ANSWER_SECONDS_MAX = 5.0

SERVICE_UNAVAILABLE = 503
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
JETSTREAM_NOT_ENABLED = (10076, 10039)

STORE_FAILED = "error creating store"
"""How JetStream describes that it cannot use the files left of a durable."""

NO_JETSTREAM = (
    "the NATS server runs without JetStream: start it with `--jetstream` and a `--store_dir`,"
    " or enable JetStream for this account"
)

Decoded = TypeVar("Decoded")


class ApiError(msgspec.Struct, frozen=True):
    """Hold JetStream's error: `code` is as in HTTP, `err_code` is JetStream's own and finer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class ApiResponse(msgspec.Struct, frozen=True):
    """Hold what each response may contain: an error."""

    error: ApiError | None = None


class Refused(BrokerUnavailable):
    """Raised when JetStream responds with an error."""

    def __init__(self, request: str, error: ApiError) -> None:
        super().__init__(f"JetStream refused {request}: {error.description} ({error.err_code})")
        self.error = error


class Damaged(Refused):
    """Raised when JetStream cannot use the files of what is to be created."""


async def find(link: Link, request: str, kind: type[Decoded], absent: int) -> Decoded | None:
    """Return the response to a request, or None if it is the error `absent`."""
    try:
        return decode(await ask(link, request), kind)
    except Refused as refused:
        if refused.error.err_code == absent:
            return None
        raise


async def create(link: Link, request: str, payload: Mapping[str, Any]) -> bytes:
    """Return the response to a creation. A refusal is permanent unless the server was unavailable."""
    try:
        return await ask(link, request, payload)
    except Refused as refused:
        if refused.error.code == SERVICE_UNAVAILABLE or isinstance(refused, Damaged):
            raise
        raise BrokerUnsuitable(
            f"{refused}: change the setting of Todoku or of the server"
        ) from None


async def ask(link: Link, request: str, payload: Mapping[str, Any] | None = None) -> bytes:
    """Return the response to a request. Raises a `BrokerError` for an error and for no response.

    Two servers of a cluster without a meta leader may both respond: the first one counts.
    """
    body = b"" if payload is None else msgspec.json.encode(payload)
    subject = f"{link.api_prefix}.{request}"
    try:
        response, *_ = await link.replies(
            lambda reply: link.send(subject, body, reply),
            expected=1,
            seconds=ANSWER_SECONDS_MAX,
            subjects=(subject,),
        )
    except ServiceUnreachable:
        raise BrokerUnsuitable(NO_JETSTREAM) from None
    error = decode(response, ApiResponse).error
    if error is not None:
        raise _refusal(request, error)
    return response


def decode(response: bytes, kind: type[Decoded]) -> Decoded:
    """Decode a response. Raises `BrokerUnavailable` for one that was damaged on its way."""
    try:
        return msgspec.json.decode(response, type=kind)
    except (ValueError, RecursionError) as error:
        raise BrokerUnavailable(
            f"a response of JetStream cannot be decoded ({error}): {response[:80]!r}; if this repeats,"
            " check what stands between this process and the NATS server"
        ) from error


def _refusal(request: str, error: ApiError) -> BrokerError:
    if error.err_code in JETSTREAM_NOT_ENABLED:
        return BrokerUnsuitable(NO_JETSTREAM)
    if error.description.startswith(STORE_FAILED):
        return Damaged(request, error)
    return Refused(request, error)

"""Damages the stream through JetStream's own API, as an operator can."""

import asyncio
from typing import Any

import msgspec
import nats

from todoku.broker.connection import connection_options
from todoku.broker.permissions import OPERATOR
from todoku.settings import Settings

ANSWER_SECONDS_MAX = 5.0


def delete_stream(settings: Settings) -> None:
    """Delete the stream with its messages and durables."""
    _request(settings, f"STREAM.DELETE.{settings.stream_name}")


def purge_stream(settings: Settings) -> None:
    """Delete all messages of the stream."""
    _request(settings, f"STREAM.PURGE.{settings.stream_name}")


def delete_durable(settings: Settings, service: str) -> None:
    """Delete a service's durable consumer, and its position with it."""
    _request(settings, f"CONSUMER.DELETE.{settings.stream_name}.{service}")


def messages_stored(settings: Settings, subjects: str) -> int:
    """Return how many messages the stream holds on these subjects."""
    filtered = {"subjects_filter": subjects}
    state = _request(settings, f"STREAM.INFO.{settings.stream_name}", filtered)["state"]
    return sum(state.get("subjects", {}).values())


def _request(
    settings: Settings, request: str, payload: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the reply to a request.

    Raises an `OSError` or `nats.errors.Error` when there is none, and `LookupError` when it is an
    error, for instance because there is nothing to delete.
    """
    answer = asyncio.run(_exchange(settings, request, payload or {}))
    if "error" in answer:
        raise LookupError(answer["error"]["description"])
    return answer


async def _exchange(settings: Settings, request: str, payload: dict[str, Any]) -> dict[str, Any]:
    client = await nats.connect(
        settings.broker_url,
        connect_timeout=2,
        allow_reconnect=False,
        **connection_options(settings, OPERATOR),
    )
    try:
        body = msgspec.json.encode(payload) if payload else b""
        answer = await client.request(f"$JS.API.{request}", body, timeout=ANSWER_SECONDS_MAX)
    finally:
        await client.close()
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    return decoded

"""Responses of the JetStream API: publish acknowledgements, streams, messages and durable consumers.

Source: docs.nats.io, "NATS API Reference".
"""

from typing import Any

import msgspec

from todoku.broker.jetstream_api import ApiError
from todoku.broker.jetstream_config import EARLIER_EPOCHS_KEY, EPOCH_KEY


class PublishAck(msgspec.Struct, frozen=True, gc=False):
    """Hold the response to a message, or to the last of a batch: its sequence number, or an error."""

    seq: int = 0
    error: ApiError | None = None


class StreamState(msgspec.Struct, frozen=True):
    """Hold the sequence numbers of the oldest and the newest message in the stream."""

    first_seq: int
    last_seq: int


class StreamInfo(msgspec.Struct, frozen=True):
    """Hold a stream's configuration, time of creation and state."""

    config: dict[str, Any]
    created: str
    state: StreamState

    @property
    def stream_epoch(self) -> str:
        """Return what changes when the stream is created again or was rolled back."""
        epoch = (self.config.get("metadata") or {}).get(EPOCH_KEY, "")
        return f"{self.config.get('name')}@{self.created}{epoch and '+'}{epoch}"

    @property
    def earlier_epochs(self) -> dict[str, int]:
        """Return the epochs before the stream was rolled back; none if somebody has changed them."""
        found = (self.config.get("metadata") or {}).get(EARLIER_EPOCHS_KEY, "{}")
        try:
            return msgspec.json.decode(found, type=dict[str, int])
        except (msgspec.DecodeError, TypeError):
            return {}


class StoredMessage(msgspec.Struct, frozen=True):
    """Hold a message's sequence number and body."""

    seq: int
    data: bytes = b""


class FoundMessage(msgspec.Struct, frozen=True):
    """Hold the response to a lookup of a message."""

    message: StoredMessage


class AckFloor(msgspec.Struct, frozen=True):
    """Hold a place of a durable: a sequence number of the stream, and a number of deliveries. Up to there
    everything is acknowledged, or delivered."""

    stream_seq: int
    consumer_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True):
    """Hold a durable consumer's configuration and state."""

    config: dict[str, Any]
    delivered: AckFloor
    ack_floor: AckFloor
    num_pending: int
    num_ack_pending: int
    paused: bool = False

    @property
    def pending(self) -> bool:
        """Return whether it has messages to deliver, or unacknowledged ones, as far as it knows."""
        return self.num_pending > 0 or self.num_ack_pending > 0

    @property
    def subjects(self) -> list[str]:
        """Return what it subscribes to."""
        several: list[str] = self.config.get("filter_subjects") or []
        return several or [self.config.get("filter_subject") or ">"]

    @property
    def place(self) -> int:
        """Return the sequence number of the last message that it has delivered, or behind which it begins."""
        first: int = self.config.get("opt_start_seq", 0)
        return max(self.delivered.stream_seq, first - 1)

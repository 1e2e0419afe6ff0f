"""Define what the engine needs of a message broker (the port), and no more.

The broker is a cache: it may lose, repeat or forget any message. The transactional outbox and inbox
around it give at-least-once delivery and idempotent consumers. The broker only has to report
truthfully what it holds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

OWNER_HEADER = "Todoku-Owner"
"""The header of a message that names the process that has published it."""


class BrokerError(Exception):
    """Base of all errors between this process and the broker."""


class BrokerUnavailable(BrokerError):
    """Raised when the broker did not answer or cannot take this now. Whether it carried out the
    request is unknown: retry later."""


class BrokerUnsuitable(BrokerError):
    """Raised when the broker answers but cannot serve: no JetStream, too old, not permitted. The
    message says what to do."""


class MessageTooLarge(BrokerError):
    """Raised when a message exceeds what the broker takes; nothing of its batch was published.

    `sizes` are the bytes of each message that is too large, by its index in the batch.
    """

    def __init__(self, sizes: Mapping[int, int], bytes_max: int) -> None:
        largest = max(sizes.values())
        super().__init__(
            f"an event of {largest} bytes exceeds the {bytes_max} bytes that the broker takes:"
            " raise `max_payload` of the NATS server"
        )
        self.sizes = sizes
        self.bytes_max = bytes_max


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """Hold a message to be stored in the stream. `body` is the whole encoded event, and `owner` the process
    that publishes it, which its receipts are for."""

    subject: str
    body: bytes
    owner: str = ""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """Hold a message that was delivered from the stream.

    `attempt` counts its deliveries from 1. `sequence` is its sequence number within `stream_epoch`.
    `token` is the broker's own handle, given back to acknowledge the message. `owner` is the process that
    published it, empty if it is unknown. `durable` is the durable consumer that it came through. The slot
    that a subject may end with (`broker/partitions.py`) is not in `subject`.
    """

    subject: str
    body: bytes
    attempt: int
    sequence: int
    token: Any
    stream_epoch: str = ""
    headers: Mapping[str, str] | None = None
    owner: str = ""
    durable: str = ""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """Confirm that a batch of messages is stored in the stream.

    `stream_epoch` changes when the stream is wiped or re-created. `sequence` is the
    sequence number of the batch's last message within that epoch.
    """

    stream_epoch: str
    sequence: int


class Progress(msgspec.Struct, frozen=True, gc=False):
    """Report how far the stream and its durable consumers are.

    `consumed[durable]` is the highest sequence number up to which that consumer has acknowledged
    everything that matches its subjects (with nothing pending: the stream's `last_sequence` at the
    time of the request). A consumer that does not exist is absent. `acknowledged` names those that
    have ever acknowledged a message. `earlier_epochs` are those that the stream had before it was rolled
    back, each with the sequence number up to which it held the same messages.
    """

    stream_epoch: str
    first_sequence: int
    last_sequence: int
    consumed: Mapping[str, int]
    acknowledged: frozenset[str] = frozenset()
    earlier_epochs: Mapping[str, int] = {}


class StartAfter(msgspec.Struct, frozen=True, gc=False):
    """The place behind which a new durable consumer starts, in one epoch of the stream."""

    stream_epoch: str
    sequence: int


class Subscription(Protocol):
    """Consume the stream through a durable consumer, limited by credit (backpressure)."""

    def want(self, count: int) -> None:
        """Add `count` to the number of messages that may be delivered.

        Credit survives disconnection, a restart of the broker and the loss of its stream: only
        deliveries use it up.
        """

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these, also those of another subscription of this process. Returns at once: a lost
        acknowledgement costs one redelivery."""

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        """Request redelivery of this one, not before `delay_seconds` have passed."""

    def term(self, delivery: Delivery) -> None:
        """Terminate this one: it is never redelivered."""

    async def stop(self) -> None:
        """Stop consuming; unacknowledged messages are redelivered, here or elsewhere."""


class Broker(Protocol):
    """Connect one process to the broker. Methods run on the event loop's thread.

    Every method may be called while the broker is unavailable: `publish` and `progress` then raise
    `BrokerUnavailable` within their time limit; `subscribe` and `listen` take effect on connection;
    `notify` does nothing. Streams and durable consumers are created when absent, also when they are
    lost while running.
    """

    @property
    def connected(self) -> bool:
        """Return whether the broker is connected, as far as is known."""

    @property
    def max_message_bytes(self) -> int | None:
        """Return how large a body the broker takes; None before the first connection."""

    @property
    def configuration_problems(self) -> Sequence[str]:
        """Return what is misconfigured at the broker and cannot be corrected, and what to do."""

    @property
    def configuration_corrections(self) -> int:
        """Return how many misconfigurations this process has corrected."""

    async def start(self) -> None:
        """Start connecting, and retry for ever. Returns at once, connected or not.

        Raises `BrokerUnsuitable` only if that is already known.
        """

    async def stop(self) -> None:
        """Flush the send buffer, for less than a second, and disconnect."""

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        """Store all of these in the stream, in order; return when they are on its disk.

        After `BrokerUnavailable` none, some or all may be stored: publish the same batch again.
        Raises `MessageTooLarge` before anything is sent: publish the others without those.
        """

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        *,
        start_after: StartAfter | None = None,
    ) -> Subscription:
        """Consume `subjects` through the durable consumer `durable`; a new one starts behind
        `start_after` if the stream is in that epoch, else at the beginning of the stream.

        `deliver` is called on the event loop's thread with one or more messages at a time and never
        with more than `want` allows. Processes that share a durable share its messages.
        """

    async def progress(self, readers: Sequence[str]) -> Progress:
        """Return how far the stream and these durable consumers are."""

    async def begin_epoch(self, ended: str) -> None:
        """Begin a new stream epoch, on evidence that the stream was rolled back in the epoch `ended`: its
        sequence numbers are assigned a second time. Does nothing if another epoch has begun already.
        Processes notice it in `progress` and `publish`."""

    async def first_after(self, sequence: int, subjects: Sequence[str]) -> int | None:
        """Return the sequence number of the first message on these subjects after `sequence`, or None."""

    async def forget(self, durable: str) -> None:
        """Delete a durable consumer with its position, if there is one: `subscribe` creates a new one."""

    def notify(self, subject: str, body: bytes) -> None:
        """Publish to current listeners only, without storing: at most once."""

    async def listen(
        self, subject: str, on_message: Callable[[bytes], None], *, group: str | None = None
    ) -> None:
        """Call `on_message` for each notification on `subject`, which has no wildcards; within a `group`, one
        member gets each."""

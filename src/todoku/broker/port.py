"""What the engine asks of a message broker, and no more.

The broker is a cache: it may lose anything, repeat anything and forget everything; the outboxes and
inboxes around it make the system whole again. It is only asked to be honest about what it holds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec


class BrokerError(Exception):
    """Something went wrong between this process and the broker."""


class BrokerUnavailable(BrokerError):
    """The broker did not answer, or cannot take this now. It may or may not have done what was
    asked: ask again later."""


class BrokerUnsuitable(BrokerError):
    """The broker answers but cannot serve: no JetStream, too old, not permitted, too large. The
    message says what to do."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """A message to be stored in the stream. `body` is the whole event."""

    subject: str
    body: bytes


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message from the stream, as it was handed over.

    `attempt` counts its deliveries from 1. `sequence` is its place in the stream's life
    `incarnation`. `token` is the broker's own handle, given back to settle it.
    """

    subject: str
    body: bytes
    attempt: int
    sequence: int
    token: Any
    stream_epoch: str = ""
    headers: Mapping[str, str] | None = None


class Stored(msgspec.Struct, frozen=True, gc=False):
    """The broker's word that a batch of messages is in the stream.

    `incarnation` names the stream's life (it changes when the stream is wiped or re-created), and
    `sequence` is the place of the last message of the batch within that life.
    """

    stream_epoch: str
    sequence: int


class Progress(msgspec.Struct, frozen=True, gc=False):
    """How far the stream and its readers are.

    `consumed[reader]` is the highest place up to which that reader has settled everything meant for
    it (when nothing is pending for it, the stream's own `last_sequence` at the time of asking). A
    reader without a durable consumer is absent.
    """

    stream_epoch: str
    first_sequence: int
    last_sequence: int
    consumed: Mapping[str, int]


class Subscription(Protocol):
    """A durable reader of the stream, fed by credit: nothing arrives that was not asked for."""

    def want(self, count: int) -> None:
        """Allow `count` more messages to be delivered, on top of what was allowed before.

        Credit survives disconnection, a restart of the broker and the loss of its stream: it is
        used up by deliveries only.
        """

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Say that these are done with. Not waited for: a lost ack costs one repeat."""

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        """Ask for this one again, not before `delay_seconds` have passed."""

    def term(self, delivery: Delivery) -> None:
        """Say that this one must never come again."""

    async def stop(self) -> None:
        """Take no more deliveries; what is unsettled comes again, here or elsewhere."""


class Broker(Protocol):
    """One process's connection to the broker. Methods run on the event loop's thread.

    Every method may be called while the broker is away: `publish` and `progress` then raise
    `BrokerUnavailable` within their time limit; the others remember what was asked or, for
    `notify`, do nothing. Streams and durable consumers are made when absent, also after they were
    lost in mid-flight.
    """

    @property
    def connected(self) -> bool:
        """Whether the broker answers right now, as far as is known."""

    async def start(self) -> None:
        """Begin connecting, and go on trying for ever. Returns at once, connected or not.

        Raises `BrokerUnsuitable` only if that is already known.
        """

    async def stop(self) -> None:
        """Send what is buffered, if that takes no longer than a moment, and let go."""

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        """Store all of these in the stream, in order; return when they are on its disk.

        After `BrokerUnavailable` none, some or all may be stored: publish the same again.
        """

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
    ) -> Subscription:
        """Read `subjects` of the stream as the durable reader `durable`, from its start.

        `deliver` is called on the event loop's thread with one or more messages at a time and never
        with more than was allowed by `want`. Processes that share a durable share its messages.
        """

    async def progress(self, readers: Sequence[str]) -> Progress:
        """How far the stream and these durable readers are."""

    async def first_after(self, sequence: int, subjects: Sequence[str]) -> int | None:
        """The place of the first message of these subjects behind `sequence`, None without one."""

    async def forget(self, durable: str) -> None:
        """Delete a durable reader and how far it was, if there is one: read again, it starts anew."""

    def notify(self, subject: str, body: bytes) -> None:
        """Tell whoever listens right now. At most once, no disk: it may be lost."""

    async def listen(
        self, subject: str, heard: Callable[[bytes], None], *, group: str | None = None
    ) -> None:
        """Hear what is notified on `subject`; of those that share a `group`, one hears each."""

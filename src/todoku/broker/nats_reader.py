"""A durable reader of the stream: messages pulled as far as its credit goes."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from time import monotonic

import msgspec
import structlog
from nats.aio.subscription import Subscription as NatsSubscription

from todoku.broker.jetstream import NANOSECONDS, JetStream
from todoku.broker.nats_link import Link
from todoku.broker.nats_wire import Inbox, Message, publication
from todoku.broker.port import BrokerError, BrokerUnavailable, Delivery

PULL_EXPIRES_SECONDS = 30
HEARTBEAT_SECONDS = 5
SILENCE_SECONDS_MAX = 12.5
"""A request that nothing was heard of for so long, not even a heartbeat, is lost."""

RETRY_SECONDS = 0.25

HEARTBEAT = "100"
EXPIRED = ("404", "408")

log = structlog.get_logger()


class NatsReader:
    """A `todoku.broker.Subscription` on a durable pull consumer.

    One request for messages is outstanding at a time, so that it is always known what it may still
    bring, and nothing arrives beyond the credit. A request that may be lost is given up together
    with its inbox: what it brings after that reaches nobody, and comes again after the ack wait.
    """

    def __init__(
        self,
        stream: JetStream,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        stopped: Callable[["NatsReader"], None],
    ) -> None:
        self._stream = stream
        self._durable = durable
        self._subjects = subjects
        self._deliver = deliver
        self._on_stop = stopped
        self._loop = asyncio.get_running_loop()
        self._next_subject = stream.next_subject(durable)
        self._link: Link | None = None
        self._serving: asyncio.Task[None] | None = None
        self._subscription: NatsSubscription | None = None
        self._incarnation = ""
        self._inbox = ""
        self._credit = 0
        self._requested = 0
        self._requests = 0
        self._heard_at = 0.0
        self._astray = asyncio.Event()
        self._arrived: list[Delivery] = []
        self._problem = ""
        self._stopped = False

    def want(self, count: int) -> None:
        self._credit += count
        self._pull()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._settle(deliveries, b"+ACK")

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        delay = int(delay_seconds * NANOSECONDS)
        self._settle([delivery], b'-NAK {"delay": %d}' % delay if delay > 0 else b"-NAK")

    def term(self, delivery: Delivery) -> None:
        self._settle([delivery], b"+TERM")

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._on_stop(self)
        self._hand_over()
        if self._link is not None and self._subscription is not None:
            await self._link.drain(self._subscription)
        self.detach()

    def attach(self, link: Link) -> None:
        """Read through this connection until `detach`."""
        self._link = link
        self._serving = asyncio.create_task(self._serve(link))

    def detach(self) -> None:
        """Let go of the connection; the credit stays."""
        if self._serving is not None:
            self._serving.cancel()
        if self._link is not None:
            self._close_inbox(self._link)
        self._link = None

    async def _serve(self, link: Link) -> None:
        while True:
            await self.serve_one_inbox(link)
            await asyncio.sleep(RETRY_SECONDS)

    async def serve_one_inbox(self, link: Link) -> None:
        """Make the durable if it is absent, and pull from it until that must be done anew."""
        try:
            self._incarnation = await self._stream.prepare_durable(
                link, self._durable, self._subjects
            )
            self._open_inbox(link)
            self._pull()
            await self._until_astray()
        except BrokerError as problem:
            self._in_trouble(problem)
        finally:
            self._close_inbox(link)

    def _in_trouble(self, problem: BrokerError) -> None:
        if str(problem) != self._problem:
            log.warning("broker_reader_away", durable=self._durable, problem=str(problem))
        self._problem = str(problem)

    def _open_inbox(self, link: Link) -> None:
        inbox = link.new_inbox()
        self._subscription = link.hear(f"{inbox}.*", Inbox(self._heard))
        self._inbox = inbox
        self._requested = 0
        self._problem = ""
        self._astray.clear()

    def _close_inbox(self, link: Link) -> None:
        # From here until it is known again which life the stream is in, nothing is settled: an ack
        # names a place in the stream, and might hit another message in a later life.
        self._incarnation = ""
        self._inbox = ""
        if self._subscription is not None:
            link.unhear(self._subscription)
            self._subscription = None

    async def _until_astray(self) -> None:
        """Return when the server gives up the request, or says nothing about it any more."""
        self._heard_at = monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._astray.wait(), HEARTBEAT_SECONDS)
                return
            if self._requested and monotonic() - self._heard_at > SILENCE_SECONDS_MAX:
                log.warning("broker_reader_unanswered", durable=self._durable)
                return

    def _pull(self) -> None:
        """Ask for all that is allowed, unless it is being asked for already."""
        if self._requested or not self._credit or self._stopped:
            return
        if self._link is None or not self._inbox:
            return
        self._requests += 1
        self._heard_at = monotonic()
        request = {
            "batch": self._credit,
            "expires": PULL_EXPIRES_SECONDS * NANOSECONDS,
            "idle_heartbeat": HEARTBEAT_SECONDS * NANOSECONDS,
        }
        with contextlib.suppress(BrokerUnavailable):  # A new connection asks again.
            self._link.send(self._next_subject, msgspec.json.encode(request), self._reply_subject())
            self._requested = self._credit

    def _reply_subject(self) -> str:
        return f"{self._inbox}.{self._requests}"

    def _heard(self, message: Message) -> None:
        self._heard_at = monotonic()
        if not message.reply:
            self._told(message)
            return
        attempt, sequence = _place(message.reply)
        self._requested -= 1
        self._credit -= 1
        if not self._arrived:
            self._loop.call_soon(self._hand_over)
        self._arrived.append(
            Delivery(
                subject=message.subject[len(self._stream.prefix) :],
                body=message.body,
                attempt=attempt,
                sequence=sequence,
                token=(self._incarnation, message.reply),
                stream_epoch=self._incarnation,
                headers=message.headers,
            )
        )

    def _told(self, message: Message) -> None:
        """The server speaks about a request."""
        status = message.headers.status
        if status == HEARTBEAT or message.subject != self._reply_subject():
            return
        if status in EXPIRED:
            self._requested = 0
            self._pull()
            return
        log.info("broker_pull_refused", durable=self._durable, said=message.headers.word)
        self._astray.set()

    def _hand_over(self) -> None:
        """Deliver what has arrived in this turn of the event loop; once stopped, give it back."""
        arrived, self._arrived = self._arrived, []
        if self._stopped:
            for delivery in arrived:
                self.nak(delivery, 0)
        elif arrived:
            self._pull()
            self._deliver(arrived)

    def _settle(self, deliveries: Sequence[Delivery], word: bytes) -> None:
        # What is of another life of the stream comes again, if that life goes on.
        replies = [
            reply
            for stream_epoch, reply in (delivery.token for delivery in deliveries)
            if stream_epoch == self._incarnation
        ]
        if self._link is None or not replies:
            return
        with contextlib.suppress(BrokerUnavailable):
            self._link.send_all([publication(reply, word) for reply in replies])


def _place(ack_subject: str) -> tuple[int, int]:
    """A delivery's attempt and its place in the stream, from its ack subject.

    `$JS.ACK.<stream>.<durable>.<attempt>.<sequence>.…`, or with `<domain>.<account>` before the
    stream (ADR-15).
    """
    parts = ack_subject.split(".")
    first = 4 if len(parts) == 9 else 6
    return int(parts[first]), int(parts[first + 1])

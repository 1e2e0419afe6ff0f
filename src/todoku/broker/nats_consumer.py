"""Consume a durable pull consumer of JetStream, as far as the credit goes."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from time import monotonic

import msgspec
import structlog
from nats.aio.subscription import Subscription as NatsSubscription

from todoku.broker.jetstream import NANOSECONDS, JetStream
from todoku.broker.nats_link import Link
from todoku.broker.nats_wire import Message, ReplyInbox, publication
from todoku.broker.partitions import without_slot
from todoku.broker.port import (
    OWNER_HEADER,
    BrokerError,
    BrokerUnavailable,
    Delivery,
    StartAfter,
)

PULL_EXPIRES_SECONDS = 30
HEARTBEAT_SECONDS = 1
LOOK_SECONDS = 0.5
"""How often it is checked whether the pull request is still answered."""

SILENT_LOOKS_MAX = 5
"""A pull request without any message or heartbeat at this many checks in a row counts as lost. Checks are
counted, not seconds: a process that stood still has read nothing meanwhile, and must not take that for
silence."""

CHECK_SECONDS = 5
"""How often the configuration of the stream and the durable is compared with what it must be."""

RETRY_SECONDS = 0.25

PARTS_OF_ACK_SUBJECT = 9
"""How many parts it has without a domain."""

HEARTBEAT = "100"
EXPIRED = ("404", "408")

log = structlog.get_logger()


class NatsConsumer:
    """Implement `todoku.broker.Subscription` on a durable pull consumer.

    One pull request is outstanding at a time, so the number of messages that it may still deliver is
    always known and the credit is never exceeded. A request that may be lost is abandoned together
    with its reply inbox: what it delivers later is ignored and redelivered after the ack wait.
    """

    def __init__(
        self,
        stream: JetStream,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        stopped: Callable[["NatsConsumer"], None],
        start_after: StartAfter | None = None,
    ) -> None:
        self._stream = stream
        self._durable = durable
        self._subjects = subjects
        self._deliver = deliver
        self._on_stop = stopped
        self._start_after = start_after
        self._loop = asyncio.get_running_loop()
        self._next_subject = stream.next_subject(durable)
        self._link: Link | None = None
        self._serving: asyncio.Task[None] | None = None
        self._subscription: NatsSubscription | None = None
        self._stream_epoch = ""
        self._reply_inbox = ""
        self._credit = 0
        self._requested = 0
        self._requests = 0
        self._silent_looks = 0
        self._stale = asyncio.Event()
        self._arrived: list[Delivery] = []
        self._problem = ""
        self._stopped = False

    def want(self, count: int) -> None:
        self._credit += count
        self._pull()

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._acknowledge(deliveries, b"+ACK")

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        delay = int(delay_seconds * NANOSECONDS)
        self._acknowledge([delivery], b'-NAK {"delay": %d}' % delay if delay > 0 else b"-NAK")

    def term(self, delivery: Delivery) -> None:
        self._acknowledge([delivery], b"+TERM")

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._on_stop(self)
        self._deliver_arrived()
        if self._link is not None and self._subscription is not None:
            await self._link.drain(self._subscription)
        link, stream_epoch = self._link, self._stream_epoch
        self.detach()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        # What was delivered is acknowledged after this, as long as the connection lasts.
        self._link, self._stream_epoch = link, stream_epoch

    def attach(self, link: Link) -> None:
        """Consume through this connection until `detach`."""
        self._link = link
        link.subscribe(
            self._stream.durable_elected_subject(self._durable),
            ReplyInbox(lambda _: self._stale.set()),
        )
        self._serving = asyncio.create_task(self._serve(link))

    def detach(self) -> None:
        """Release the connection; the credit stays."""
        if self._serving is not None:
            self._serving.cancel()
        if self._link is not None:
            self._close_reply_inbox(self._link)
        self._link = None

    async def _serve(self, link: Link) -> None:
        while True:
            await self.pull_until_stale(link)
            await asyncio.sleep(RETRY_SECONDS)

    async def pull_until_stale(self, link: Link) -> None:
        """Create or correct the durable, then pull from it until its state must be checked again."""
        try:
            self._stream_epoch = await self._stream.prepare_durable(
                link, self._durable, self._subjects, self._start_after
            )
            self._open_reply_inbox(link)
            self._pull()
            await self._until_stale(link)
        except BrokerError as problem:
            self._note_problem(problem)
        finally:
            self._close_reply_inbox(link)

    def _note_problem(self, problem: BrokerError) -> None:
        if str(problem) != self._problem:
            log.warning("broker_consumer_unavailable", durable=self._durable, problem=str(problem))
        self._problem = str(problem)

    def _open_reply_inbox(self, link: Link) -> None:
        inbox = link.new_inbox()
        self._subscription = link.subscribe(f"{inbox}.*", ReplyInbox(self._on_message))
        self._reply_inbox = inbox
        self._requested = 0
        self._problem = ""
        self._stale.clear()

    def _close_reply_inbox(self, link: Link) -> None:
        # Until the stream epoch is known again nothing is acknowledged: an acknowledgement names a
        # sequence number, which may belong to another message in a later epoch.
        self._stream_epoch = ""
        self._reply_inbox = ""
        if self._subscription is not None:
            link.unsubscribe(self._subscription)
            self._subscription = None

    async def _until_stale(self, link: Link) -> None:
        """Return when the server ends the pull request, is silent about it for too long, or the
        stream's epoch changes. Corrects the configuration of stream and durable meanwhile."""
        self._silent_looks = 0
        checked_at = monotonic()
        while not await self._is_stale_within(LOOK_SECONDS):
            if self._silent_looks >= SILENT_LOOKS_MAX:
                log.warning("broker_pull_unanswered", durable=self._durable)
                return
            self._silent_looks += bool(self._requested)
            if monotonic() - checked_at >= CHECK_SECONDS:
                if await self._epoch_changed(link):
                    return
                checked_at = monotonic()

    async def _is_stale_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stale.wait()
        return self._stale.is_set()

    async def _epoch_changed(self, link: Link) -> bool:
        """Correct the configuration of stream and durable; return whether the stream began a new epoch."""
        try:
            stream_epoch = await self._stream.prepare_durable(
                link, self._durable, self._subjects, self._start_after
            )
        except BrokerError as problem:
            self._note_problem(problem)
            return False
        return stream_epoch != self._stream_epoch

    def _pull(self) -> None:
        """Request as many messages as the credit allows, unless a request is outstanding."""
        if self._requested or not self._credit or self._stopped:
            return
        if self._link is None or not self._reply_inbox:
            return
        self._requests += 1
        self._silent_looks = 0
        request = {
            "batch": self._credit,
            "expires": PULL_EXPIRES_SECONDS * NANOSECONDS,
            "idle_heartbeat": HEARTBEAT_SECONDS * NANOSECONDS,
        }
        with contextlib.suppress(BrokerUnavailable):  # A new connection pulls again.
            self._link.send(self._next_subject, msgspec.json.encode(request), self._reply_subject())
            self._requested = self._credit

    def _reply_subject(self) -> str:
        return f"{self._reply_inbox}.{self._requests}"

    def _on_message(self, message: Message) -> None:
        self._silent_looks = 0
        if not message.reply:
            self._on_status(message)
            return
        attempt, sequence = _attempt_and_sequence(message.reply)
        self._requested -= 1
        self._credit -= 1
        if not self._arrived:
            self._loop.call_soon(self._deliver_arrived)
        self._arrived.append(
            Delivery(
                subject=without_slot(message.subject[len(self._stream.prefix) :]),
                body=message.body,
                attempt=attempt,
                sequence=sequence,
                token=(self._stream_epoch, message.reply),
                stream_epoch=self._stream_epoch,
                headers=message.headers,
                owner=message.headers.find(OWNER_HEADER),
                durable=self._durable,
            )
        )

    def _on_status(self, message: Message) -> None:
        """Handle a status message about the pull request."""
        status = message.headers.status
        if status == HEARTBEAT or message.subject != self._reply_subject():
            return
        if status in EXPIRED:
            self._requested = 0
            self._pull()
            return
        log.info("broker_pull_refused", durable=self._durable, status=message.headers.status_line)
        self._stale.set()

    def _deliver_arrived(self) -> None:
        """Deliver what arrived in this turn of the event loop; once stopped, return it by a nak."""
        arrived, self._arrived = self._arrived, []
        if self._stopped:
            for delivery in arrived:
                self.nak(delivery, 0)
        elif arrived:
            self._pull()
            self._stream.history.note(arrived[-1].stream_epoch, arrived[-1].sequence)
            self._deliver(arrived)

    def _acknowledge(self, deliveries: Sequence[Delivery], verb: bytes) -> None:
        # A message of another stream epoch is redelivered, if that epoch continues.
        replies = [
            reply
            for stream_epoch, reply in (delivery.token for delivery in deliveries)
            if stream_epoch == self._stream_epoch
        ]
        if self._link is None or not replies:
            return
        with contextlib.suppress(BrokerUnavailable):
            self._link.send_all([publication(reply, verb) for reply in replies])


def _attempt_and_sequence(ack_subject: str) -> tuple[int, int]:
    """Return a delivery's attempt and its sequence number, from its ack subject.

    `$JS.ACK.<stream>.<durable>.<attempt>.<sequence>.…`, or with `<domain>.<account>` before the
    stream (ADR-15).
    """
    parts = ack_subject.split(".")
    place = 4 if len(parts) == PARTS_OF_ACK_SUBJECT else 6
    return int(parts[place]), int(parts[place + 1])

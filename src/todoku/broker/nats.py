"""Implement the broker port on NATS JetStream.

A supervisor keeps one connection: it connects, checks the server, creates the stream and the durables
if absent, and starts again when the connection is lost. nats-py's own reconnection is off: some server
errors end it for good, so a second recovery path would be needed beside it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import structlog

from todoku.broker.jetstream import JetStream
from todoku.broker.jetstream_api import ask, decode
from todoku.broker.jetstream_messages import PublishAck
from todoku.broker.nats_consumer import NatsConsumer
from todoku.broker.nats_link import Link, ServiceUnreachable
from todoku.broker.nats_wire import Message, ReplyInbox, publication
from todoku.broker.permissions import API_PREFIX, ROLLED_BACK
from todoku.broker.port import (
    OWNER_HEADER,
    BrokerError,
    BrokerUnavailable,
    BrokerUnsuitable,
    Delivery,
    MessageTooLarge,
    Outgoing,
    Progress,
    StartAfter,
    Stored,
)
from todoku.broker.roll_backs import RollBacks

BATCH_MESSAGES_MAX = 1_000
"""The server's limit for an atomic batch."""

BATCH_BYTES_MAX = 4 * 1024 * 1024
BATCH_ID_LENGTH = 24
"""Length of a batch id, the end of its reply subject: unique, and short, as each message stores it."""

SINGLES_MAX = 12
"""Up to here, single publishes are faster than an atomic batch, which costs some 4 ms however small
it is (measured with `sync_interval: always`; break-even at 16 to 20)."""

CREDENTIALS_SECONDS = 5.0
RETRY_SECONDS = 0.25
CANCEL_AGAIN_SECONDS = 1.0
UNSUITABLE_RETRY_SECONDS = 2.0
NOTIFY_BUFFER_BYTES_MAX = 8 * 1024 * 1024

Options = Callable[[], Mapping[str, Any]]
"""Returns what nats-py's `connect` takes, such as credentials."""

log = structlog.get_logger()


class NatsBroker:
    """Implement `todoku.broker.Broker`: this process's connection to a NATS server or cluster.

    `subjects` are what the stream stores. `prefix` is prepended to every subject and durable name and
    removed from incoming ones, so that installations can share a server. A `disposable` stream may
    be deleted when its files are damaged.
    `options` go to nats-py's `connect` (tls, user_credentials, nkeys_seed, inbox_prefix, …); a function
    returns them for each connection. With `operator`, the options of a user who may do everything, that
    user updates and deletes the stream. One that `marks_roll_backs` does so for others who may not.
    `problem` is the reason why the broker does not serve now, or None.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        *,
        stream: str = "TODOKU",
        subjects: Sequence[str] = ("orders.>", "inventory.>", "shipping.>"),
        prefix: str = "",
        name: str = "todoku",
        max_age_seconds: float = 24 * 60 * 60,
        max_bytes: int = 1024**3,
        replicas: int = 1,
        ack_wait_seconds: float = 10,
        publish_timeout_seconds: float = 5,
        disposable: bool = False,
        options: Options | Mapping[str, Any] | None = None,
        operator: Options | None = None,
        marks_roll_backs: bool = False,
        api_prefix: str = API_PREFIX,
    ) -> None:
        self.problem: BrokerError | None = None
        self._urls = [urls] if isinstance(urls, str) else list(urls)
        self._name = name
        self._options = options if callable(options) else lambda: options or {}
        self._operator = operator
        self._api_prefix = api_prefix
        self._marks_roll_backs = RollBacks(self._mark_roll_back) if marks_roll_backs else None
        self._prefix = f"{prefix.strip('.')}." if prefix else ""
        self._stream = JetStream(
            stream,
            prefix=self._prefix,
            subjects=subjects,
            max_age_seconds=max_age_seconds,
            max_bytes=max_bytes,
            replicas=replicas,
            ack_wait_seconds=ack_wait_seconds,
            disposable=disposable,
            as_operator=self._as_operator if operator else None,
            api_prefix=api_prefix,
        )
        self._publish_timeout_seconds = publish_timeout_seconds
        self._link: Link | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._consumers: list[NatsConsumer] = []
        self._listeners: list[tuple[str, ReplyInbox, str]] = []
        self._max_message_bytes: int | None = None

    @property
    def connected(self) -> bool:
        return self._link is not None and self._link.alive

    @property
    def max_message_bytes(self) -> int | None:
        return self._max_message_bytes

    @property
    def configuration_problems(self) -> Sequence[str]:
        link, problem = self._link, self.problem
        refusal = [str(problem)] if isinstance(problem, BrokerUnsuitable) else []
        return (
            *refusal,
            *self._stream.problems.values(),
            *(link.forbidden.values() if link else ()),
        )

    @property
    def configuration_corrections(self) -> int:
        return self._stream.corrections

    async def start(self) -> None:
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._supervisor is None:
            return
        await asyncio.gather(*(consumer.stop() for consumer in self._consumers))
        await _cancelled(self._supervisor)
        self._supervisor = None

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        link = self._serving()
        _refuse_too_large(messages, link.body_bytes_max)
        try:
            return await self._store(link, messages)
        except _NotStored:
            # The stream is absent or misconfigured: correct it, and publish once more.
            await self._stream.prepare(link)
            return await self._store(link, messages)

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        *,
        start_after: StartAfter | None = None,
    ) -> NatsConsumer:
        consumer = NatsConsumer(
            self._stream, durable, subjects, deliver, self._consumers.remove, start_after
        )
        self._consumers.append(consumer)
        if self._link is not None and self._link.alive:
            consumer.attach(self._link)
        return consumer

    async def progress(self, readers: Sequence[str]) -> Progress:
        link = self._serving()
        # Ask for the stream before its consumers: these then tell how much of it they have consumed.
        stream = await self._stream.prepare(link)
        found = await asyncio.gather(*(self._stream.consumer_info(link, name) for name in readers))
        infos = {name: info for name, info in zip(readers, found, strict=True) if info is not None}
        last = stream.state.last_seq
        places = await asyncio.gather(
            *(self._stream.consumed(link, info, last) for info in infos.values())
        )
        return Progress(
            stream_epoch=stream.stream_epoch,
            first_sequence=stream.state.first_seq,
            last_sequence=last,
            consumed=dict(zip(infos, places, strict=True)),
            acknowledged=frozenset(
                name for name, info in infos.items() if info.ack_floor.consumer_seq > 0
            ),
            earlier_epochs=stream.earlier_epochs,
        )

    async def begin_epoch(self, ended: str) -> None:
        await self._stream.begin_epoch(self._serving(), ended)

    async def first_after(self, sequence: int, subjects: Sequence[str]) -> int | None:
        link = self._serving()
        found = await asyncio.gather(
            *(self._stream.first_after(link, sequence, subject) for subject in subjects)
        )
        return min((place for place in found if place is not None), default=None)

    async def forget(self, durable: str) -> None:
        await self._stream.forget_durable(self._serving(), durable)

    def notify(self, subject: str, body: bytes) -> None:
        link = self._link
        if link is None or link.unsent_bytes > NOTIFY_BUFFER_BYTES_MAX:
            return  # At most once: dropped rather than buffered.
        with contextlib.suppress(BrokerUnavailable):
            link.send(self._prefix + subject, body)

    async def listen(
        self, subject: str, on_message: Callable[[bytes], None], *, group: str | None = None
    ) -> None:
        address = self._prefix + subject

        def pass_on(message: Message) -> None:
            # A consumer may have the server deliver stored messages to any subject: they keep their own.
            if message.subject == address:
                on_message(message.body)

        listener = address, ReplyInbox(pass_on), group or ""
        self._listeners.append(listener)
        if self._link is not None and self._link.alive:
            self._link.subscribe(*listener)

    def _serving(self) -> Link:
        """Return the connection; raise the reason if there is none."""
        if self._link is not None and self._link.alive:
            return self._link
        raise BrokerUnavailable(str(self.problem or "the broker is not connected"))

    async def _supervise(self) -> None:
        while True:
            pause_seconds = await self.serve_one_connection()
            await asyncio.sleep(pause_seconds)

    async def serve_one_connection(self) -> float:
        """Connect and serve until the connection is lost; return the seconds to wait before the next."""
        link = Link(self._note_problem, self._api_prefix)
        try:
            await link.open(self._urls, {**self._options(), "name": self._name})
            self._max_message_bytes = link.body_bytes_max
            await self._stream.prepare(link, starting=True)
            await self._serve(link)
        except BrokerUnsuitable as problem:
            self._note_problem(problem)
            return UNSUITABLE_RETRY_SECONDS
        except BrokerError as problem:
            self._note_problem(problem)
        except Exception as error:
            # The supervisor survives any error.
            log.exception("broker_supervisor_failed")
            self._note_problem(BrokerUnavailable(repr(error)))
        finally:
            self._link = None
            for consumer in self._consumers:
                consumer.detach()
            await link.close()
        return RETRY_SECONDS

    async def _serve(self, link: Link) -> None:
        for listener in self._listeners:
            link.subscribe(*listener)
        link.subscribe(
            self._stream.elected_subject,
            ReplyInbox(lambda _: link.fail_pending("another server leads the stream now")),
        )
        if self._marks_roll_backs is not None:
            subject = self._prefix + ROLLED_BACK
            link.subscribe(subject, ReplyInbox(self._marks_roll_backs.on_message))
        for consumer in self._consumers:
            consumer.attach(link)
        self._link = link
        self.problem = None
        log.info("broker_connected", stream_epoch=self._stream.stream_epoch)
        await link.lost()
        raise BrokerUnavailable("the connection to the broker was lost")

    async def refuse_wrong_credentials(self) -> None:
        """Raise `BrokerUnsuitable` if the broker answers and does not know this user."""
        link = Link(lambda _: None)
        with contextlib.suppress(BrokerUnavailable, TimeoutError):
            try:
                async with asyncio.timeout(CREDENTIALS_SECONDS):
                    await link.open(self._urls, {**self._options(), "name": self._name})
            finally:
                await link.close()

    async def _as_operator(self, request: str, payload: Mapping[str, Any] | None) -> bytes:
        """Return JetStream's response to a request of the operator."""
        assert self._operator is not None
        link = Link(self._note_problem)
        try:
            async with asyncio.timeout(CREDENTIALS_SECONDS):
                await link.open(self._urls, {**self._operator(), "name": self._name})
            return await ask(link, request, payload)
        except TimeoutError:
            raise BrokerUnavailable("the broker did not answer its operator") from None
        finally:
            await link.close()

    async def _mark_roll_back(self, ended: str) -> None:
        """Begin a new epoch for a service that may not do so."""
        if self._link is not None:
            await self._stream.begin_epoch(self._link, ended)

    def _note_problem(self, problem: BrokerError) -> None:
        """Store the problem, and log it when it changes."""
        if str(problem) != str(self.problem):
            if isinstance(problem, BrokerUnsuitable):
                log.error("broker_unsuitable", problem=str(problem))
            else:
                log.warning("broker_unavailable", problem=str(problem))
        self.problem = problem

    async def _store(self, link: Link, messages: Sequence[Outgoing]) -> Stored:
        # Read before anything is sent, so never newer than the epoch that stores it. An older one is
        # safe: the caller sees that it has ended, and resends.
        stream_epoch = self._stream.stream_epoch
        before = self._stream.history.highest(stream_epoch)
        sequence = 0
        for chunk in _chunks(messages):
            sequence = await self._store_chunk(link, chunk)
        if sequence <= before:
            # The sequence number was assigned twice: another stream, or one that was rolled back.
            await self._stream.prepare(link)
        elif stream_epoch == self._stream.stream_epoch:
            self._stream.note_published(stream_epoch, sequence, messages[-1].body)
        return Stored(stream_epoch=stream_epoch, sequence=sequence)

    async def _store_chunk(self, link: Link, chunk: Sequence[Outgoing]) -> int:
        """Store what fits one batch; return the sequence number of its last message."""
        send, answers_expected = self._send_batch, 1
        if len(chunk) <= SINGLES_MAX:
            send, answers_expected = self._send_singles, len(chunk)
        try:
            answers = await link.replies(
                lambda reply: send(link, chunk, reply),
                expected=answers_expected,
                seconds=self._publish_timeout_seconds,
                subjects={self._prefix + message.subject for message in chunk},
            )
        except ServiceUnreachable:
            raise _NotStored(f"no stream stores {chunk[0].subject}") from None
        return max(_sequence(answer) for answer in answers)

    def _send_singles(self, link: Link, chunk: Sequence[Outgoing], reply: str) -> None:
        link.send_all(
            publication(
                self._prefix + message.subject, message.body, reply, _owner_line(message.owner)
            )
            for message in chunk
        )

    def _send_batch(self, link: Link, chunk: Sequence[Outgoing], reply: str) -> None:
        link.send_all(self._batch(chunk, reply))

    def _batch(self, chunk: Sequence[Outgoing], reply: str) -> Iterator[bytes]:
        batch = f"Nats-Batch-Id: {reply[-BATCH_ID_LENGTH:]}\r\nNats-Batch-Sequence: "
        for number, message in enumerate(chunk, 1):
            headers = f"{batch}{number}\r\n{_owner_line(message.owner)}"
            last = number == len(chunk)
            if last:
                headers += "Nats-Batch-Commit: 1\r\n"
            subject = self._prefix + message.subject
            yield publication(subject, message.body, reply if last else "", headers)


@lru_cache(maxsize=16)
def _owner_line(owner: str) -> str:
    """Return the header that names the process that publishes a message."""
    return f"{OWNER_HEADER}: {owner}\r\n" if owner else ""


async def _cancelled(task: "asyncio.Task[None]") -> None:
    """Cancel a task, again and again until it has ended.

    One cancellation may be lost: nats-py waits with `asyncio.wait_for`, which in Python 3.11 ignores a
    cancellation that arrives together with what it waits for.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=CANCEL_AGAIN_SECONDS)


class _NotStored(BrokerUnavailable):
    """Raised when the stream refused a message: it is absent, full, sealed or misconfigured."""


def _sequence(answer: bytes) -> int:
    stored = decode(answer, PublishAck)
    if stored.error is not None:
        raise _NotStored(f"not stored: {stored.error.description} ({stored.error.err_code})")
    return stored.seq


def _refuse_too_large(messages: Sequence[Outgoing], bytes_max: int) -> None:
    sizes = {n: len(m.body) for n, m in enumerate(messages) if len(m.body) > bytes_max}
    if sizes:
        raise MessageTooLarge(sizes, bytes_max)


def _chunks(messages: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """Split the messages, in order, into chunks that fit an atomic batch."""
    chunk: list[Outgoing] = []
    chunk_bytes = 0
    for message in messages:
        size = len(message.body)
        if len(chunk) == BATCH_MESSAGES_MAX or (chunk and chunk_bytes + size > BATCH_BYTES_MAX):
            yield chunk
            chunk, chunk_bytes = [], 0
        chunk.append(message)
        chunk_bytes += size
    if chunk:
        yield chunk

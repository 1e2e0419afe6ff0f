"""The stream and its durable consumers, kept as they should be through JetStream's JSON API.

Source: docs.nats.io, "NATS API Reference"; ADR-50 for atomic batches. The requests are made here
because nats-py has no field for `allow_atomic`.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from todoku.broker.nats_link import Link, ServiceUnreachable
from todoku.broker.port import BrokerError, BrokerUnavailable, BrokerUnsuitable

ANSWER_SECONDS_MAX = 5.0
ACK_PENDING_MAX = 20_000
"""Messages of a durable that may be unsettled at once: well above all the credit of its readers."""

NANOSECONDS = 1_000_000_000

SERVICE_UNAVAILABLE = 503
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
JETSTREAM_NOT_ENABLED = (10076, 10039)

STORE_FAILED = "error creating store"
"""How JetStream describes that it cannot use the files that are left of a durable."""

NO_JETSTREAM = (
    "the NATS server runs without JetStream: start it with `--jetstream` and a `--store_dir`,"
    " or enable JetStream for this account"
)

log = structlog.get_logger()


class ApiError(msgspec.Struct, frozen=True):
    """Why JetStream refused: `code` is as in HTTP, `err_code` is JetStream's own and finer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What every answer may be: a refusal."""

    error: ApiError | None = None


class PublishAnswer(msgspec.Struct, frozen=True, gc=False):
    """The answer to a message, or to the last of a batch: its place in the stream, or a refusal."""

    seq: int = 0
    error: ApiError | None = None


class StreamState(msgspec.Struct, frozen=True):
    """The places of the oldest and the newest message that the stream holds."""

    first_seq: int
    last_seq: int


class StreamInfo(msgspec.Struct, frozen=True):
    """What a stream is set to, when it was made and what it holds."""

    config: dict[str, Any]
    created: str
    state: StreamState

    @property
    def stream_epoch(self) -> str:
        return f"{self.config['name']}@{self.created}"


class MessagePlace(msgspec.Struct, frozen=True):
    """Where in the stream a message is."""

    seq: int


class FoundMessage(msgspec.Struct, frozen=True):
    """A message that was looked up."""

    message: MessagePlace


class AckFloor(msgspec.Struct, frozen=True):
    """Up to where in the stream everything is settled."""

    stream_seq: int


class ConsumerInfo(msgspec.Struct, frozen=True):
    """What a durable consumer is set to and how far it is."""

    config: dict[str, Any]
    ack_floor: AckFloor
    num_pending: int
    num_ack_pending: int

    def consumed(self, last_sequence: int) -> int:
        """Up to where all is settled, if the stream's end was at `last_sequence` before."""
        if self.num_pending == 0 and self.num_ack_pending == 0:
            return last_sequence
        return self.ack_floor.stream_seq


Info = TypeVar("Info", StreamInfo, ConsumerInfo)


class JetStream:
    """One stream and its durables, as they should be.

    Subjects and durables are given and taken without `prefix`. A `disposable` stream is nobody else's,
    so that it may be deleted, to be made anew, when its files are damaged.
    """

    def __init__(
        self,
        name: str,
        *,
        prefix: str,
        subjects: Sequence[str],
        max_age_seconds: float,
        max_bytes: int,
        replicas: int,
        ack_wait_seconds: float,
        disposable: bool = False,
    ) -> None:
        self.prefix = prefix
        self._disposable = disposable
        self._name = name
        self._ack_wait_seconds = ack_wait_seconds
        self._preparing = asyncio.Lock()
        self._config = {
            "name": name,
            "subjects": [prefix + subject for subject in subjects],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "max_age": int(max_age_seconds * NANOSECONDS),
            "max_bytes": max_bytes,
            "num_replicas": replicas,
            "allow_atomic": True,
        }

    def next_subject(self, reader: str) -> str:
        """Where a durable's messages are asked for."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{self._durable(reader)}"

    async def prepare(self, link: Link) -> StreamInfo:
        """Make the stream when it is absent, or make it what it should be."""
        async with self._preparing:
            info = await self.info(link)
            if info is None:
                return await self._set(link, "CREATE", self._config)
            config = _amended(info.config, self._config, "subjects")
            return info if config == info.config else await self._set(link, "UPDATE", config)

    async def info(self, link: Link) -> StreamInfo | None:
        """The stream, or None if there is none."""
        return await _find(link, f"STREAM.INFO.{self._name}", StreamInfo, STREAM_NOT_FOUND)

    async def prepare_durable(self, link: Link, reader: str, subjects: Sequence[str]) -> str:
        """Make the durable when it is absent, or let it read `subjects` too.

        Returns the incarnation of the stream that it reads.
        """
        stream_epoch = (await self.prepare(link)).stream_epoch
        wanted = self._durable_config(reader, subjects)
        info = await self.reader_info(link, reader)
        config = wanted if info is None else _amended(info.config, wanted, "filter_subjects")
        if info is None or config != info.config:
            request = f"CONSUMER.CREATE.{self._name}.{self._durable(reader)}"
            try:
                await _make(link, request, {"stream_name": self._name, "config": config})
            except _Damaged as damaged:
                await self._begin_anew(link, damaged)
        return stream_epoch

    async def _begin_anew(self, link: Link, damaged: "_Damaged") -> None:
        """Delete the stream together with the damaged files of a durable, which stay there otherwise.

        What it held is still in the outboxes. Raises, so that everything is made again.
        """
        if not self._disposable:
            raise BrokerUnsuitable(
                f"{damaged}: its files are damaged. Delete the stream {self._name}: it is made anew,"
                " and Todoku loses nothing by that"
            )
        log.error("broker_stream_damaged", problem=str(damaged))
        await _ask(link, f"STREAM.DELETE.{self._name}")
        raise BrokerUnavailable("the stream was damaged and has been deleted: it is made anew")

    async def reader_info(self, link: Link, reader: str) -> ConsumerInfo | None:
        """The durable, or None if there is none."""
        request = f"CONSUMER.INFO.{self._name}.{self._durable(reader)}"
        return await _find(link, request, ConsumerInfo, CONSUMER_NOT_FOUND)

    async def forget_durable(self, link: Link, reader: str) -> None:
        """Delete the durable, if there is one."""
        try:
            await _ask(link, f"CONSUMER.DELETE.{self._name}.{self._durable(reader)}")
        except _Refused as refused:
            if refused.error.err_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise

    async def first_after(self, link: Link, sequence: int, subject: str) -> int | None:
        """The place of the first message on `subject` behind `sequence`, None without one."""
        wanted = {"seq": sequence + 1, "next_by_subj": self.prefix + subject}
        try:
            answer = await _ask(link, f"STREAM.MSG.GET.{self._name}", wanted)
        except _Refused as refused:
            if refused.error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise
        return msgspec.json.decode(answer, type=FoundMessage).message.seq

    async def _set(self, link: Link, verb: str, config: Mapping[str, Any]) -> StreamInfo:
        answer = await _make(link, f"STREAM.{verb}.{self._name}", config)
        return msgspec.json.decode(answer, type=StreamInfo)

    def _durable(self, reader: str) -> str:
        return self.prefix.replace(".", "-") + reader

    def _durable_config(self, reader: str, subjects: Sequence[str]) -> dict[str, Any]:
        return {
            "name": self._durable(reader),
            "durable_name": self._durable(reader),
            "filter_subjects": [self.prefix + subject for subject in subjects],
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait_seconds * NANOSECONDS),
            "max_deliver": -1,  # Any other number loses the message silently.
            "max_ack_pending": ACK_PENDING_MAX,
        }


class _Refused(BrokerUnavailable):
    """JetStream answered with an error."""

    def __init__(self, request: str, error: ApiError) -> None:
        super().__init__(f"JetStream refused {request}: {error.description} ({error.err_code})")
        self.error = error


class _Damaged(_Refused):
    """JetStream cannot use the files of what is to be made."""


async def _find(link: Link, request: str, kind: type[Info], absent: int) -> Info | None:
    """The answer to a question, or None if it is the error `absent`."""
    try:
        return msgspec.json.decode(await _ask(link, request), type=kind)
    except _Refused as refused:
        if refused.error.err_code == absent:
            return None
        raise


async def _make(link: Link, request: str, payload: Mapping[str, Any]) -> bytes:
    """The answer to a wish. One that is refused stays so, unless the server was only busy."""
    try:
        return await _ask(link, request, payload)
    except _Refused as refused:
        if refused.error.code == SERVICE_UNAVAILABLE or isinstance(refused, _Damaged):
            raise
        raise BrokerUnsuitable(f"{refused}: change the setting here or there") from None


async def _ask(link: Link, request: str, payload: Mapping[str, Any] | None = None) -> bytes:
    body = b"" if payload is None else msgspec.json.encode(payload)
    try:
        [answer] = await link.replies(
            lambda reply: link.send(f"$JS.API.{request}", body, reply),
            expected=1,
            seconds=ANSWER_SECONDS_MAX,
        )
    except ServiceUnreachable:
        raise BrokerUnsuitable(NO_JETSTREAM) from None
    error = msgspec.json.decode(answer, type=Answer).error
    if error is not None:
        raise _refusal(request, error)
    return answer


def _refusal(request: str, error: ApiError) -> BrokerError:
    if error.err_code in JETSTREAM_NOT_ENABLED:
        return BrokerUnsuitable(NO_JETSTREAM)
    if error.description.startswith(STORE_FAILED):
        return _Damaged(request, error)
    return _Refused(request, error)


def _amended(held: Mapping[str, Any], wanted: Mapping[str, Any], grows: str) -> dict[str, Any]:
    """What is held, changed into what is wanted.

    The list called `grows` only grows, so that an old process of a rolling upgrade does not take
    away what a new one has added.
    """
    kept = held.get(grows, [])
    added = [entry for entry in wanted[grows] if entry not in kept]
    return {**held, **wanted, grows: kept + added}

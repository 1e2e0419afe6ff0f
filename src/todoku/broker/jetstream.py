"""Create and configure the stream and its durable consumers through JetStream's JSON API.

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
"""Unacknowledged messages allowed for a durable: well above the credit of all its processes."""

NANOSECONDS = 1_000_000_000

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

log = structlog.get_logger()


class ApiError(msgspec.Struct, frozen=True):
    """Hold JetStream's error: `code` is as in HTTP, `err_code` is JetStream's own and finer."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class ApiResponse(msgspec.Struct, frozen=True):
    """Hold what each response may contain: an error."""

    error: ApiError | None = None


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
        return f"{self.config['name']}@{self.created}"


class MessageSequence(msgspec.Struct, frozen=True):
    """Hold the sequence number of a message."""

    seq: int


class FoundMessage(msgspec.Struct, frozen=True):
    """Hold the response to a lookup of a message."""

    message: MessageSequence


class AckFloor(msgspec.Struct, frozen=True):
    """Hold the sequence number up to which everything is acknowledged."""

    stream_seq: int


class ConsumerInfo(msgspec.Struct, frozen=True):
    """Hold a durable consumer's configuration and state."""

    config: dict[str, Any]
    ack_floor: AckFloor
    num_pending: int
    num_ack_pending: int

    def consumed(self, last_sequence: int) -> int:
        """Return up to where all is acknowledged, if the stream ended at `last_sequence` before."""
        if self.num_pending == 0 and self.num_ack_pending == 0:
            return last_sequence
        return self.ack_floor.stream_seq


Info = TypeVar("Info", StreamInfo, ConsumerInfo)


class JetStream:
    """Manage one stream and its durables.

    Subjects and durables are given without `prefix`. A `disposable` stream belongs to this
    installation alone, so it may be deleted and re-created when it is damaged.
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
        """Return the subject for pull requests to a durable."""
        return f"$JS.API.CONSUMER.MSG.NEXT.{self._name}.{self._durable(reader)}"

    async def prepare(self, link: Link) -> StreamInfo:
        """Create the stream if absent, or correct its configuration."""
        async with self._preparing:
            info = await self.info(link)
            if info is None:
                return await self._set(link, "CREATE", self._config)
            config = _amended(info.config, self._config, "subjects")
            return info if config == info.config else await self._set(link, "UPDATE", config)

    async def info(self, link: Link) -> StreamInfo | None:
        """Return the stream, or None if there is none."""
        return await _find(link, f"STREAM.INFO.{self._name}", StreamInfo, STREAM_NOT_FOUND)

    async def prepare_durable(self, link: Link, reader: str, subjects: Sequence[str]) -> str:
        """Create the durable if absent, or add `subjects` to it; return the epoch of its stream."""
        stream_epoch = (await self.prepare(link)).stream_epoch
        wanted = self._durable_config(reader, subjects)
        info = await self.consumer_info(link, reader)
        config = wanted if info is None else _amended(info.config, wanted, "filter_subjects")
        if info is None or config != info.config:
            request = f"CONSUMER.CREATE.{self._name}.{self._durable(reader)}"
            try:
                await _make(link, request, {"stream_name": self._name, "config": config})
            except _Damaged as damaged:
                await self._delete_damaged_stream(link, damaged)
        return stream_epoch

    async def _delete_damaged_stream(self, link: Link, damaged: "_Damaged") -> None:
        """Delete the stream with the damaged files of a durable, which would stay otherwise.

        Its messages are still in the outboxes. Raises, so that everything is created again.
        """
        if not self._disposable:
            raise BrokerUnsuitable(
                f"{damaged}: its files are damaged. Delete the stream {self._name}: it is re-created,"
                " and no event is lost, because the outboxes still hold them"
            )
        log.error("broker_stream_damaged", problem=str(damaged))
        await _ask(link, f"STREAM.DELETE.{self._name}")
        raise BrokerUnavailable("the stream was damaged and has been deleted: it is re-created")

    async def consumer_info(self, link: Link, reader: str) -> ConsumerInfo | None:
        """Return the durable, or None if there is none."""
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
        """Return the sequence number of the first message on `subject` after `sequence`, or None."""
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
            "max_deliver": -1,  # Any other number drops the message silently.
            "max_ack_pending": ACK_PENDING_MAX,
        }


class _Refused(BrokerUnavailable):
    """Raised when JetStream responds with an error."""

    def __init__(self, request: str, error: ApiError) -> None:
        super().__init__(f"JetStream refused {request}: {error.description} ({error.err_code})")
        self.error = error


class _Damaged(_Refused):
    """Raised when JetStream cannot use the files of what is to be created."""


async def _find(link: Link, request: str, kind: type[Info], absent: int) -> Info | None:
    """Return the response to a request, or None if it is the error `absent`."""
    try:
        return msgspec.json.decode(await _ask(link, request), type=kind)
    except _Refused as refused:
        if refused.error.err_code == absent:
            return None
        raise


async def _make(link: Link, request: str, payload: Mapping[str, Any]) -> bytes:
    """Return the response to a change. A refusal is permanent unless the server was unavailable."""
    try:
        return await _ask(link, request, payload)
    except _Refused as refused:
        if refused.error.code == SERVICE_UNAVAILABLE or isinstance(refused, _Damaged):
            raise
        raise BrokerUnsuitable(
            f"{refused}: change the setting of Todoku or of the server"
        ) from None


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
    error = msgspec.json.decode(answer, type=ApiResponse).error
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
    """Return the held configuration, updated with the wanted one.

    The list called `grows` only grows, so that an old process of a rolling upgrade does not remove
    what a new one has added.
    """
    kept = held.get(grows, [])
    added = [entry for entry in wanted[grows] if entry not in kept]
    return {**held, **wanted, grows: kept + added}

"""Create one stream and its durable consumers, and keep their configuration as it must be.

Source: docs.nats.io, "NATS API Reference"; ADR-50 for atomic batches.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from todoku.broker import jetstream_config as config
from todoku.broker.history import SequenceHistory, with_ended
from todoku.broker.jetstream_api import (
    CONSUMER_NOT_FOUND,
    MESSAGE_NOT_FOUND,
    SERVICE_UNAVAILABLE,
    STREAM_NOT_FOUND,
    Damaged,
    Refused,
    ask,
    create,
    decode,
    find,
)
from todoku.broker.jetstream_messages import ConsumerInfo, FoundMessage, StreamInfo
from todoku.broker.nats_link import Forbidden, Link
from todoku.broker.permissions import API_PREFIX, ROLLED_BACK
from todoku.broker.port import BrokerUnavailable, BrokerUnsuitable, StartAfter

ACK_PENDING_MAX = 20_000
"""Unacknowledged messages allowed for a durable: well above the credit of all its processes."""

WAITING_MAX = 512
"""Pull requests of all processes that may wait at a durable: the server's default."""

NANOSECONDS = 1_000_000_000

LEADER_ELECTED = "$JS.EVENT.ADVISORY.{}.LEADER_ELECTED"
"""Where a cluster announces that another server leads a stream or a consumer. What was requested of the
leader before is not answered any more."""

CONFIRM_SECONDS = 0.5
"""How long a stream must stay behind what was seen: a new leader of a cluster may still catch up."""

AsOperator = Callable[[str, Mapping[str, Any] | None], Awaitable[bytes]]
"""Returns JetStream's response to a request that the operator makes."""

log = structlog.get_logger()


class _Published(msgspec.Struct, frozen=True):
    """Hold the message that this process published last."""

    stream_epoch: str
    sequence: int
    body: bytes


class JetStream:
    """Manage one stream and its durables.

    Subjects and durables are given without `prefix`. A `disposable` stream belongs to this
    installation alone, so it may be deleted and created again when it is damaged or misconfigured.
    `problems` says what is misconfigured and cannot be corrected, and what to do, by stream or
    durable. `corrections` counts the misconfigurations that were corrected. `stream_epoch` is the
    epoch seen last.
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
        as_operator: AsOperator | None = None,
        api_prefix: str = API_PREFIX,
    ) -> None:
        self.prefix = prefix
        self.problems: dict[str, str] = {}
        self.corrections = 0
        self.stream_epoch = ""
        self.history = SequenceHistory()
        self._published: _Published | None = None
        self._looked_at: dict[tuple[str, str], tuple[int, int]] = {}
        """Durables that the stream has confirmed to know all: how far they and the stream were."""
        self._disposable = disposable
        self._as_operator = as_operator
        self._api_prefix = api_prefix
        self._name = name
        self._ack_wait_seconds = ack_wait_seconds
        self._preparing = asyncio.Lock()
        self._wanted = {
            "name": name,
            "subjects": [prefix + subject for subject in subjects],
            "max_age": int(max_age_seconds * NANOSECONDS),
            "max_bytes": max_bytes,
            "num_replicas": replicas,
        }

    def next_subject(self, reader: str) -> str:
        """Return the subject for pull requests to a durable."""
        return f"{self._api_prefix}.CONSUMER.MSG.NEXT.{self._name}.{self._durable(reader)}"

    @property
    def elected_subject(self) -> str:
        """Return the subject on which a cluster announces that another server leads the stream now."""
        return f"{LEADER_ELECTED.format('STREAM')}.{self._name}"

    def durable_elected_subject(self, reader: str) -> str:
        """Return the subject on which a cluster announces that another server leads the durable now."""
        return f"{LEADER_ELECTED.format('CONSUMER')}.{self._name}.{self._durable(reader)}"

    async def prepare(self, link: Link, *, starting: bool = False) -> StreamInfo:
        """Create the stream if absent, or correct its configuration; return it.

        Begins a new epoch if the stream was rolled back. What cannot be corrected is noted in
        `problems`, and the stream is used as it is. `starting`, after a connection was made, also
        lowers limits that Todoku itself had set higher.
        """
        seen = dict(self.history.highest_by_epoch)  # Before the request: later ones may be newer.
        info = await self._prepared(link, starting=starting)
        if await self._rolled_back(link, info, seen, starting=starting):
            log.error(
                "stream_rolled_back",
                stream_epoch=info.stream_epoch,
                last_sequence=info.state.last_seq,
                last_sequence_before=seen.get(info.stream_epoch, 0),
            )
            return await self.begin_epoch(link, info.stream_epoch)
        return self._noted(info)

    async def _rolled_back(
        self, link: Link, info: StreamInfo, seen: Mapping[str, int], *, starting: bool
    ) -> bool:
        """Return whether sequence numbers that were assigned before are not there any more."""
        highest = seen.get(info.stream_epoch, 0)
        if info.state.last_seq < highest:
            await asyncio.sleep(CONFIRM_SECONDS)
            again = await self.info(link)
            return (
                again is not None
                and again.stream_epoch == info.stream_epoch
                and again.state.last_seq < highest
            )
        published = self._published
        if not starting or published is None or published.stream_epoch != info.stream_epoch:
            return False
        # Others may have published since, up to the same sequence number: look at the message.
        body = await self._body(link, published.sequence)
        return body is not None and body != published.body

    async def _body(self, link: Link, sequence: int) -> bytes | None:
        try:
            response = await ask(link, f"STREAM.MSG.GET.{self._name}", {"seq": sequence})
        except Refused as refused:
            if refused.error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise
        return decode(response, FoundMessage).message.data

    def note_published(self, stream_epoch: str, sequence: int, body: bytes) -> None:
        """Note that this message was stored under this sequence number."""
        self.history.note(stream_epoch, sequence)
        self._published = _Published(stream_epoch, sequence, body)

    def _noted(self, info: StreamInfo) -> StreamInfo:
        self.stream_epoch = info.stream_epoch
        self.history.note(info.stream_epoch, info.state.last_seq)
        return info

    async def _prepared(self, link: Link, *, starting: bool) -> StreamInfo:
        async with self._preparing:
            info = await self.info(link)
            if info is None:
                self.problems.pop(self._name, None)
                return await self._create_stream(link)
            corrected = config.corrected_stream(info.config, self._wanted, starting=starting)
            if corrected == info.config:
                self.problems.pop(self._name, None)
                return info
            return await self._correct_stream(link, info, corrected)

    async def _create_stream(self, link: Link) -> StreamInfo:
        request, new = f"STREAM.CREATE.{self._name}", config.new_stream(self._wanted)
        if self._as_operator is not None:
            return decode(await self._as_operator(request, new), StreamInfo)
        try:
            return decode(await create(link, request, new), StreamInfo)
        except Forbidden:
            raise BrokerUnavailable(
                f"there is no stream {self._name} yet; the service that may create it was not here"
            ) from None

    async def _correct_stream(
        self, link: Link, info: StreamInfo, corrected: Mapping[str, Any]
    ) -> StreamInfo:
        fields = config.differences(info.config, corrected)
        try:
            response = await self._administer(link, "STREAM.UPDATE", corrected)
        except Forbidden:
            return info  # Another service may, and does.
        except Refused as refused:
            if refused.error.code == SERVICE_UNAVAILABLE:
                raise
            if not any(name in fields for name in config.STREAM_FIXED):
                self._note_problem(self._name, fields, f"{refused}: correct that")
            elif self._disposable:
                await self._delete_stream(link, f"it is misconfigured: {_listed(fields)}")
            else:
                self._note_problem(
                    self._name, fields, self._recreate(f"nats stream rm {self._name}")
                )
            return info
        self.problems.pop(self._name, None)
        self._note_correction(self._name, fields)
        return decode(response, StreamInfo)

    async def begin_epoch(self, link: Link, ended: str) -> StreamInfo:
        """Mark the stream as rolled back, so that its epoch differs from the one that has ended, unless
        another process has done so; return it."""
        async with self._preparing:
            info = await self.info(link)
            if info is None:
                raise BrokerUnavailable(f"the stream {self._name} was deleted")
            if info.stream_epoch != ended:
                return self._noted(info)
            earlier = with_ended(info.earlier_epochs, ended, info.state.last_seq)
            metadata = {
                **(info.config.get("metadata") or {}),
                config.EPOCH_KEY: secrets.token_hex(6),
                config.EARLIER_EPOCHS_KEY: msgspec.json.encode(earlier).decode(),
            }
            try:
                marked = {**info.config, "metadata": metadata}
                response = await self._administer(link, "STREAM.UPDATE", marked)
            except Forbidden:
                link.send(self.prefix + ROLLED_BACK, ended.encode())
                raise BrokerUnavailable(
                    f"the stream {self._name} was rolled back; the service that may update it was told"
                ) from None
            return self._noted(decode(response, StreamInfo))

    async def _administer(
        self, link: Link, request: str, payload: Mapping[str, Any] | None = None
    ) -> bytes:
        """Return the response to a request that not every service may make."""
        if self._as_operator is not None:
            return await self._as_operator(f"{request}.{self._name}", payload)
        return await ask(link, f"{request}.{self._name}", payload)

    async def misconfigurations(self, link: Link, readers: Sequence[str]) -> dict[str, str]:
        """Return what is wrong with the stream and these durables, by their name; change nothing.

        The subjects that a durable consumes are not compared.
        """
        info = await self.info(link)
        if info is None:
            return {}
        found = {
            self._name: config.differences(
                info.config, config.corrected_stream(info.config, self._wanted)
            )
        }
        for reader in readers:
            durable = await self.consumer_info(link, reader)
            if durable is not None:
                wanted = self._durable_config(reader, ())
                wanted["ack_wait"] = durable.config.get("ack_wait")
                fields = config.differences(
                    durable.config, config.corrected_durable(durable.config, wanted)
                )
                found[reader] = {**fields, **({"paused": "True → False"} if durable.paused else {})}
        return {place: _listed(fields) for place, fields in found.items() if fields}

    async def info(self, link: Link) -> StreamInfo | None:
        """Return the stream, or None if there is none."""
        return await find(link, f"STREAM.INFO.{self._name}", StreamInfo, STREAM_NOT_FOUND)

    async def prepare_durable(
        self,
        link: Link,
        reader: str,
        subjects: Sequence[str],
        start_after: StartAfter | None = None,
    ) -> str:
        """Create the durable if absent, or correct its configuration; return the stream's epoch."""
        stream = await self.prepare(link)
        stream_epoch = stream.stream_epoch
        wanted = self._durable_config(reader, subjects)
        here = start_after is not None and start_after.stream_epoch == stream_epoch
        new = config.new_durable(wanted, start_after.sequence if start_after and here else 0)
        info = await self.consumer_info(link, reader)
        if info is not None and await self._is_ahead(link, info, stream):
            log.error(
                "durable_ahead_of_stream",
                durable=reader,
                delivered=info.delivered.stream_seq,
                last_sequence=stream.state.last_seq,
            )
            self.corrections += 1
            await self.forget_durable(link, reader)
            info = None
        if info is None:
            self.problems.pop(reader, None)
            await self._create_durable(link, reader, new)
            return stream_epoch
        if info.paused or info.config.pop("pause_until", None):
            await ask(link, f"CONSUMER.PAUSE.{self._name}.{self._durable(reader)}", {})
            self._note_correction(reader, {"paused": "True → False"})
            info.config.pop("pause_until", None)
        corrected = config.corrected_durable(info.config, wanted)
        if corrected != info.config:
            await self._correct_durable(link, reader, info, corrected, new)
        else:
            self.problems.pop(reader, None)
        return stream_epoch

    async def _is_ahead(self, link: Link, durable: ConsumerInfo, stream: StreamInfo) -> bool:
        """Return whether a durable has delivered what the stream does not have: its files are left from an
        earlier stream. It would deliver nothing before the stream has grown as long."""
        if durable.delivered.stream_seq <= stream.state.last_seq:
            return False
        await asyncio.sleep(CONFIRM_SECONDS)  # A new leader of the stream may still catch up.
        again = await self.info(link)
        return (
            again is not None
            and again.stream_epoch == stream.stream_epoch
            and durable.delivered.stream_seq > again.state.last_seq
        )

    async def _correct_durable(
        self,
        link: Link,
        reader: str,
        info: ConsumerInfo,
        corrected: Mapping[str, Any],
        new: Mapping[str, Any],
    ) -> None:
        fields = config.differences(info.config, corrected)
        try:
            await self._create_durable(link, reader, corrected)
        except BrokerUnsuitable as refused:
            if not any(name in fields for name in config.DURABLE_FIXED):
                self._note_problem(reader, fields, str(refused))
                return
            # The inbox drops what the new durable delivers once more.
            await self.forget_durable(link, reader)
            await self._create_durable(link, reader, new)
        self.problems.pop(reader, None)
        self._note_correction(reader, fields)

    async def _create_durable(self, link: Link, reader: str, durable: Mapping[str, Any]) -> None:
        """Create or update a durable: JetStream has one request for both."""
        request = f"CONSUMER.CREATE.{self._name}.{self._durable(reader)}"
        try:
            await create(link, request, {"stream_name": self._name, "config": durable})
        except Damaged as damaged:
            if not self._disposable:
                raise BrokerUnsuitable(
                    f"{damaged}: its files are damaged. "
                    + self._recreate(f"nats stream rm {self._name}")
                ) from None
            await self._delete_stream(link, f"its files are damaged: {damaged}")

    async def _delete_stream(self, link: Link, reason: str) -> None:
        """Delete the stream; its messages are still in the outboxes.

        Raises `BrokerUnavailable`, so that everything is created again.
        """
        log.error("stream_deleted", stream=self._name, reason=reason)
        self.corrections += 1
        await self._administer(link, "STREAM.DELETE")
        raise BrokerUnavailable(
            f"the stream {self._name} was deleted, to be created again: {reason}"
        )

    def _recreate(self, command: str) -> str:
        return (
            f"Delete the stream {self._name} (`{command}`): it is created again,"
            " and no event is lost, because the outboxes still hold them"
        )

    def _note_problem(self, place: str, fields: Mapping[str, str], advice: str) -> None:
        problem = f"{place} is misconfigured: {_listed(fields)}. {advice}"
        if self.problems.get(place) != problem:
            log.error("broker_misconfigured", place=place, fields=dict(fields), advice=advice)
        self.problems[place] = problem

    def _note_correction(self, place: str, fields: Mapping[str, str]) -> None:
        if fields:  # Otherwise only metadata was added.
            self.corrections += 1
            log.warning("broker_configuration_corrected", place=place, fields=dict(fields))

    async def consumer_info(self, link: Link, reader: str) -> ConsumerInfo | None:
        """Return the durable, or None if there is none."""
        request = f"CONSUMER.INFO.{self._name}.{self._durable(reader)}"
        return await find(link, request, ConsumerInfo, CONSUMER_NOT_FOUND)

    async def forget_durable(self, link: Link, reader: str) -> None:
        """Delete the durable, if there is one."""
        try:
            await ask(link, f"CONSUMER.DELETE.{self._name}.{self._durable(reader)}")
        except Refused as refused:
            if refused.error.err_code not in (CONSUMER_NOT_FOUND, STREAM_NOT_FOUND):
                raise

    async def consumed(self, link: Link, info: ConsumerInfo, last_sequence: int) -> int:
        """Return up to where a durable has acknowledged all, if the stream ended at `last_sequence` before.

        In a cluster, the server that leads the durable may know fewer messages than the one that leads the
        stream. So where it has nothing pending, look in the stream for one that it does not know; once, as
        long as neither of them goes on.
        """
        if info.pending:
            return info.ack_floor.stream_seq
        if info.place >= last_sequence:
            return last_sequence
        durable, state = info.config.get("durable_name", ""), (info.place, last_sequence)
        if self._looked_at.get((self.stream_epoch, durable)) == state:
            return last_sequence
        following = await asyncio.gather(
            *(self._first_after(link, info.place, subject) for subject in info.subjects)
        )
        unknown = [sequence - 1 for sequence in following if sequence is not None]
        if not unknown:
            self._looked_at[self.stream_epoch, durable] = state
        return min([last_sequence, *unknown])

    async def first_after(self, link: Link, sequence: int, subject: str) -> int | None:
        """Return the sequence number of the first message on `subject` after `sequence`, or None."""
        return await self._first_after(link, sequence, self.prefix + subject)

    async def _first_after(self, link: Link, sequence: int, subject: str) -> int | None:
        wanted = {"seq": sequence + 1, "next_by_subj": subject}
        try:
            response = await ask(link, f"STREAM.MSG.GET.{self._name}", wanted)
        except Refused as refused:
            if refused.error.err_code in (MESSAGE_NOT_FOUND, STREAM_NOT_FOUND):
                return None
            raise
        return decode(response, FoundMessage).message.seq

    def _durable(self, reader: str) -> str:
        return self.prefix.replace(".", "-") + reader

    def _durable_config(self, reader: str, subjects: Sequence[str]) -> dict[str, Any]:
        return {
            "name": self._durable(reader),
            "durable_name": self._durable(reader),
            "filter_subjects": [self.prefix + subject for subject in subjects],
            "ack_wait": int(self._ack_wait_seconds * NANOSECONDS),
            "max_ack_pending": ACK_PENDING_MAX,
            "max_waiting": WAITING_MAX,
        }


def _listed(fields: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {change}" for name, change in fields.items())

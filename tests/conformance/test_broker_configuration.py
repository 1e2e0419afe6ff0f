"""Test that a changed configuration of the stream or a durable is corrected while services run."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from brokers import ACK_WAIT_SECONDS, NatsHost, until

from todoku.broker import Broker, BrokerUnavailable, Delivery, Outgoing, nats_consumer
from todoku.broker.jetstream import JetStream
from todoku.broker.jetstream_config import (
    CONFIG_VERSION,
    DURABLE_FIELDS,
    STREAM_FIELDS,
    VERSION_KEY,
    corrected_durable,
    corrected_stream,
    merged,
    new_durable,
    new_stream,
)
from todoku.broker.jetstream_messages import ConsumerInfo
from todoku.broker.nats import NatsBroker
from todoku.broker.nats_link import Link

pytestmark = pytest.mark.anyio

SECOND = 1_000_000_000
SUBJECTS = ["orders.created", "shipping.failed"]
GROUP = {"priority_groups": ["g"], "priority_timeout": 5 * SECOND}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NatsHost]:
    monkeypatch.setattr(nats_consumer, "CHECK_SECONDS", 0.2)
    host = NatsHost(tmp_path)
    yield host
    for service in Service.running:
        await service.stop()
    Service.running.clear()
    await host.close()


class Service:
    """Publish, consume and look like a service's engine."""

    running: ClassVar[list["Service"]] = []

    def __init__(self, broker: NatsBroker) -> None:
        self.broker = broker
        self.bodies: list[bytes] = []
        self._looking = asyncio.create_task(self._look())

    @classmethod
    async def on(cls, host: NatsHost, **settings: Any) -> "Service":
        service = cls(await host.connect(publish_timeout_seconds=1, **settings))
        cls.running.append(service)
        service._subscription = await service.broker.subscribe(
            "inventory", SUBJECTS, service._consume
        )
        service._subscription.want(10_000)
        await service.delivers(b"before")
        return service

    def _consume(self, deliveries: list[Delivery]) -> None:
        self.bodies += [delivery.body for delivery in deliveries]
        self._subscription.ack(deliveries)

    async def delivers(self, body: bytes) -> None:
        """Publish this, again and again as a relay on evidence, until it is consumed."""
        async with asyncio.timeout(30):
            while body not in self.bodies:
                try:
                    await self.broker.publish([Outgoing("orders.created", body)])
                    await until(lambda: body in self.bodies, 0.5)
                except (BrokerUnavailable, TimeoutError):
                    await asyncio.sleep(0.02)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(0.2)
            try:
                await self.broker.progress(["inventory"])
            except BrokerUnavailable:
                continue

    async def stop(self) -> None:
        self._looking.cancel()
        await self.broker.stop()


async def corrected(host: NatsHost, fields: dict[str, Any]) -> None:
    """Wait until each of these fields of the stream is as Todoku needs it."""
    async with asyncio.timeout(20):
        while True:
            config = await host.stream_config()
            stored = set(WANTED["subjects"]) <= set(config.get("subjects", ()))
            if stored and all((config.get(n) or None) == (v or None) for n, v in fields.items()):
                return
            await asyncio.sleep(0.05)


async def corrected_consumer(host: NatsHost, fields: dict[str, Any]) -> None:
    """Wait until each of these fields of the durable is as Todoku needs it."""
    async with asyncio.timeout(20):
        while True:
            config = await host.consumer_config()
            consumed = set(SUBJECTS) <= set(config.get("filter_subjects", ()))
            if consumed and all((config.get(n) or None) == (v or None) for n, v in fields.items()):
                return
            await asyncio.sleep(0.05)


WANTED: dict[str, Any] = {
    **STREAM_FIELDS,
    "subjects": ["orders.>", "inventory.>", "shipping.>"],
    "max_age": 24 * 60 * 60 * SECOND,
    "max_bytes": 1024**3,
}
WANTED_DURABLE: dict[str, Any] = {
    **DURABLE_FIELDS,
    "filter_subjects": SUBJECTS,
    "ack_wait": ACK_WAIT_SECONDS * SECOND,
    "max_ack_pending": 20_000,
    "max_waiting": 512,
}


def name_of(changes: dict[str, Any]) -> str:
    return "+".join(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"subjects": ["orders.created"]},
        {"subjects": ["orders.*", "foreign.>"]},
        {"subjects": ["foreign.>"]},
        {"subject_transform": {"src": "orders.>", "dest": "orders.lost.>"}},
        {"republish": {"src": "orders.>", "dest": "leak.>"}},
        {"max_msgs": 1, "discard": "new"},
        {"max_msgs_per_subject": 1},
        {"max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": True},
        {"max_bytes": 1000},
        {"max_bytes": 1000, "discard": "new"},
        {"max_age": SECOND, "duplicate_window": SECOND},
        {"max_msg_size": 2},
        {"max_consumers": 1},
        {"no_ack": True},
        {"retention": "interest"},
        {"allow_atomic": False},
        {"sources": [{"name": "ELSEWHERE"}]},
    ],
    ids=name_of,
)
async def test_changed_stream_is_corrected_under_a_running_service(
    host: NatsHost, changes: dict[str, Any]
) -> None:
    service = await Service.on(host)
    await host.update_stream(**changes)
    await service.delivers(b"after")
    fields = {name: WANTED[name] for name in changes if name in WANTED and name != "subjects"}
    await corrected(host, fields)
    # The server has it before its answer is here.
    await until(lambda: service.broker.configuration_corrections >= 1)
    assert service.broker.configuration_problems == ()
    await service.stop()


@pytest.mark.parametrize(
    "changes",
    [
        {"retention": "workqueue"},
        {"storage": "memory"},
        {"persist_mode": "async", "allow_atomic": None},
        {"mirror": {"name": "ELSEWHERE"}, "subjects": None, "allow_atomic": None},
        {"allow_msg_counter": True, "allow_atomic": None},
        {"consumer_limits": {"max_ack_pending": 1}},
        {"subjects": ["orders.created"]},
    ],
    ids=name_of,
)
async def test_stream_that_somebody_created_wrongly_is_created_again_where_it_is_disposable(
    host: NatsHost, changes: dict[str, Any]
) -> None:
    service = await Service.on(host, disposable=True)
    await host.recreate_stream(**changes)
    await service.delivers(b"after")
    await corrected(host, {name: WANTED.get(name) for name in changes if name != "subjects"})
    await service.stop()


async def test_sealed_stream_is_created_again_where_it_is_disposable(host: NatsHost) -> None:
    service = await Service.on(host, disposable=True)
    await host.update_stream(sealed=True)
    await service.delivers(b"after")
    await service.stop()


async def test_sealed_stream_of_others_is_a_problem_until_it_is_deleted(host: NatsHost) -> None:
    service = await Service.on(host)
    await host.update_stream(sealed=True)
    await until(lambda: service.broker.configuration_problems)
    [problem] = service.broker.configuration_problems
    assert "sealed True → None" in problem
    assert "nats stream rm TODOKU" in problem
    assert service.broker.connected
    with pytest.raises(BrokerUnavailable, match="sealed"):
        await service.broker.publish([Outgoing("orders.created", b"refused")])
    await host.delete_stream()
    await service.delivers(b"after")
    assert service.broker.configuration_problems == ()
    await service.stop()


async def test_subjects_that_another_stream_stores_are_a_problem(host: NatsHost) -> None:
    service = await Service.on(host)
    await host.update_stream(subjects=["orders.>"])
    await host.ask("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["inventory.>"]})
    await until(lambda: service.broker.configuration_problems)
    assert "subjects overlap" in service.broker.configuration_problems[0]
    await service.delivers(b"orders go on")
    await host.ask("STREAM.DELETE.OTHER")
    await until(lambda: not service.broker.configuration_problems)
    await service.stop()


@pytest.mark.parametrize(
    "changes",
    [
        {"filter_subjects": ["shipping.failed"]},
        {"filter_subjects": ["orders.cancelled"]},
        {"filter_subjects": None, "filter_subject": "orders.cancelled"},
        {"filter_subjects": ["orders.>"]},
        {"filter_subjects": None},
        {"ack_wait": 3_600 * SECOND},
        {"max_deliver": 3},
        {"max_ack_pending": 1},
        {"headers_only": True},
        {"max_batch": 1},
        {"max_expires": SECOND},
        {"max_bytes": 10},
        {"backoff": [3_600 * SECOND], "max_deliver": 5},
        {"inactive_threshold": 60 * SECOND},
        {"priority_policy": "pinned_client", **GROUP},
        {"priority_policy": "overflow", "priority_groups": ["g"]},
    ],
    ids=name_of,
)
async def test_changed_durable_is_corrected_under_a_running_service(
    host: NatsHost, changes: dict[str, Any]
) -> None:
    service = await Service.on(host)
    await host.update_consumer(**changes)
    await service.delivers(b"after")
    fields = {name: WANTED_DURABLE[name] for name in changes if name != "filter_subjects"}
    await corrected_consumer(host, fields)
    assert service.broker.configuration_problems == ()
    await service.stop()


@pytest.mark.parametrize(
    "changes",
    [
        {"deliver_policy": "new"},
        {"deliver_policy": "last"},
        {"ack_policy": "none"},
        {"ack_policy": "all"},
        {"replay_policy": "original"},
        {"max_waiting": 1},
        {"mem_storage": True},
        {"deliver_subject": "elsewhere", "max_waiting": None},
    ],
    ids=name_of,
)
async def test_durable_that_somebody_created_wrongly_is_created_again(
    host: NatsHost, changes: dict[str, Any]
) -> None:
    service = await Service.on(host)
    await host.recreate_consumer(**changes)
    await service.delivers(b"after")
    await corrected_consumer(host, {name: WANTED_DURABLE[name] for name in changes})
    await service.stop()


async def test_paused_durable_is_resumed(host: NatsHost) -> None:
    service = await Service.on(host)
    until_2099 = {"pause_until": "2099-01-01T00:00:00Z"}
    await host.ask("CONSUMER.PAUSE.TODOKU.inventory", until_2099)
    await service.delivers(b"after")
    assert "pause_until" not in await host.consumer_config()
    corrections = service.broker.configuration_corrections
    await service.delivers(b"later")
    assert service.broker.configuration_corrections == corrections == 1
    await service.stop()


async def test_what_belongs_to_the_operator_stays(host: NatsHost) -> None:
    service = await Service.on(host)
    theirs = {
        "compression": "s2",
        "max_bytes": 2 * 1024**3,
        "max_age": 0,
        "allow_direct": True,
        "deny_purge": True,
        "description": "ours",
        "subjects": [*WANTED["subjects"], "audit.>"],
    }
    await host.update_stream(**theirs)
    await host.update_consumer(max_ack_pending=100_000, sample_freq="10", num_replicas=1)
    await service.delivers(b"after")
    await service.stop()
    again = await Service.on(host)
    held, durable = await host.stream_config(), await host.consumer_config()
    assert {name: held[name] for name in theirs} == theirs
    assert (durable["max_ack_pending"], durable["sample_freq"]) == (100_000, "10")
    assert (durable["num_replicas"], again.broker.configuration_corrections) == (1, 0)
    await again.stop()


async def test_limit_that_todoku_itself_had_set_can_be_lowered(host: NatsHost) -> None:
    service = await Service.on(host)
    await service.stop()
    service = await Service.on(host, max_bytes=2**20)
    assert (await host.stream_config())["max_bytes"] == 2**20
    await service.stop()


async def test_older_process_leaves_alone_what_a_newer_one_has_set(host: NatsHost) -> None:
    service = await Service.on(host)
    newer = {VERSION_KEY: str(CONFIG_VERSION + 1)}
    await host.update_stream(allow_atomic=False, metadata=newer)
    await host.update_consumer(max_ack_pending=1, metadata=newer)
    await service.delivers(b"after")
    await service.stop()
    again = await Service.on(host)
    held, durable = await host.stream_config(), await host.consumer_config()
    assert (held.get("allow_atomic", False), durable["max_ack_pending"]) == (False, 1)
    await again.stop()


async def test_what_rewrites_messages_is_corrected_whatever_version_it_names(
    host: NatsHost,
) -> None:
    """Whoever may create a stream could forge events with it, and name a version above ours."""
    service = await Service.on(host)
    await host.update_stream(
        metadata={VERSION_KEY: str(CONFIG_VERSION + 998)},
        republish={"src": "orders.>", "dest": "leak.>"},
        subject_transform={"src": "orders.evil.*.*", "dest": "{{wildcard(1)}}.{{wildcard(2)}}"},
    )
    await corrected(host, {"republish": None, "subject_transform": None})
    await service.stop()


async def test_durable_whose_files_are_left_from_a_longer_stream_is_created_again(
    host: NatsHost,
) -> None:
    """Somebody deleted the folder of a running broker, which wrote the state of the durable meanwhile."""
    service = await Service.on(host)
    await service.broker.publish([Outgoing("orders.created", b"%d" % n) for n in range(500)])
    await service.delivers(b"last")
    await host.stop()
    host.server.keep_only_durables()
    await host.start()

    await service.delivers(b"after")
    await service.stop()


async def test_durable_whose_server_lags_has_not_consumed_what_it_does_not_know(
    host: NatsHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cluster the server that leads it may be behind the one that leads the stream: a new service on a
    new cluster would take its database for a lost one."""
    broker = await host.connect()
    subscription = await broker.subscribe("inventory", SUBJECTS, lambda _: None)
    async with asyncio.timeout(20):
        while "inventory" not in (await broker.progress(["inventory"])).consumed:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await broker.publish([Outgoing("orders.created", b"1"), Outgoing("orders.created", b"2")])
    as_it_is = JetStream.consumer_info

    async def as_before(jetstream: JetStream, link: Link, reader: str) -> ConsumerInfo | None:
        info = await as_it_is(jetstream, link, reader)
        assert info is not None
        return msgspec.structs.replace(info, num_pending=0)

    monkeypatch.setattr(JetStream, "consumer_info", as_before)
    assert (await broker.progress(["inventory"])).consumed == {"inventory": 0}
    await subscription.stop()
    await broker.stop()


def test_three_replicas_are_not_set_back_to_one() -> None:
    wanted = {"name": "T", "subjects": ["a.>"], "max_age": 1, "max_bytes": 1, "num_replicas": 1}
    held = {**new_stream(wanted), "num_replicas": 3, "placement": {"cluster": "tokyo"}}
    assert corrected_stream(held, wanted, starting=True) == held


def test_new_configurations_need_no_correction() -> None:
    stream = {"name": "T", "subjects": ["a.>"], "max_age": 1, "max_bytes": 1, "num_replicas": 1}
    assert corrected_stream(new_stream(stream), stream, starting=True) == new_stream(stream)
    durable = {"filter_subjects": ["a.b"], "ack_wait": 1, "max_ack_pending": 1, "max_waiting": 1}
    assert corrected_durable(new_durable(durable), durable) == new_durable(durable)


@pytest.mark.parametrize(
    ("held", "wanted", "expected"),
    [
        ([], ["a.>"], ["a.>"]),
        (["a.>"], ["a.>"], ["a.>"]),
        (["a.b"], ["a.>"], ["a.>"]),
        (["*.b"], ["a.>"], ["a.>"]),
        ([">"], ["a.>", "b.>"], [">"]),
        (["x.>", "a.b"], ["a.>", "b.>"], ["x.>", "a.>", "b.>"]),
        (["a.*"], ["a.b", "b.c"], ["a.*", "b.c"]),
        (["a"], ["a.>"], ["a", "a.>"]),
        (["a.b.c"], ["a.*"], ["a.b.c", "a.*"]),
    ],
)
def test_subjects_are_merged_without_overlaps(
    held: list[str], wanted: list[str], expected: list[str]
) -> None:
    assert merged(held, wanted) == expected


async def test_two_processes_correct_the_same_change(host: NatsHost) -> None:
    one, other = await Service.on(host), await Service.on(host)
    await host.update_stream(max_msgs=1, discard="new")
    await one.delivers(b"one")
    await other.delivers(b"other")
    await one.stop()
    await other.stop()


async def test_response_damaged_on_its_way_is_an_error_that_is_retried(host: NatsHost) -> None:
    service = await Service.on(host)
    broker: Broker = service.broker
    link = service.broker._link
    assert link is not None
    replies = link.replies

    async def damaged(*arguments: Any, **options: Any) -> list[bytes]:
        return [reply.replace(b'"', b"\xff", 3) for reply in await replies(*arguments, **options)]

    link.replies = damaged  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailable, match="cannot be decoded"):
        await broker.progress(["inventory"])
    with pytest.raises(BrokerUnavailable, match="cannot be decoded"):
        await broker.publish([Outgoing("orders.created", b"damaged")])
    with pytest.raises(BrokerUnavailable, match="cannot be decoded"):
        await broker.first_after(0, ["orders.created"])
    link.replies = replies  # type: ignore[method-assign]
    await service.delivers(b"after")
    await service.stop()


async def test_second_reply_of_another_server_is_ignored(host: NatsHost) -> None:
    service = await Service.on(host)
    link = service.broker._link
    assert link is not None

    def both_reply(reply: str) -> None:
        link.send(reply, b"one")
        link.send(reply, b"other")

    assert await link.replies(both_reply, expected=1, seconds=5) == [b"one"]
    await service.delivers(b"after")
    await service.stop()

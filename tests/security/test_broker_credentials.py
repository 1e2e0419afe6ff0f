"""What each service's credential may do at the embedded broker, tried on a real nats-server."""

import asyncio
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from broker_access import connect_as_operator
from todoku.broker import Outgoing
from todoku.broker.connection import connection_options
from todoku.broker.credentials import make_seeds
from todoku.broker.embedded import PROBE_SUBJECT, argv, find_server, is_ready, write_config
from todoku.broker.nats import NatsBroker
from todoku.broker.permissions import OPERATOR, READER, Place
from todoku.broker.port import BrokerUnavailable, BrokerUnsuitable, Delivery
from todoku.broker.server_config import API, Layout, server_config
from todoku.settings import Settings
from todoku.system import system

BOUND_SECONDS = 20.0
OWNER = "00112233aabbccdd"
SERVICES = system.names
STREAM = "TODOKU"


@pytest.fixture(scope="module", params=["of todoku up", "of todoku broker-config"])
def settings(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    free_ports: Callable[[int], list[int]],
) -> Iterator[Settings]:
    """A running broker, configured in one of both ways, with its stream and a durable of each service."""
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("data")
    if request.param == "of todoku up":
        settings = Settings(data_dir=folder, nats_port=port)
        write_config(settings, SERVICES)
        command = argv(find_server(), settings)
    else:
        settings = with_accounts(folder, port)
        command = (str(find_server().path), "--config", str(folder / "nats.conf"))
    server = subprocess.Popen(command)
    try:
        asyncio.run(_until_ready(port))
        asyncio.run(_consume_once(settings))
        yield settings
    finally:
        server.kill()
        server.wait()


def with_accounts(folder: Path, port: int) -> Settings:
    """Write the configuration of a server of its own, and return how services reach it."""
    layout = Layout(Place(STREAM), SERVICES, ("loyalty",))
    keys = make_seeds(folder / "credentials", layout.names)
    config = server_config(
        layout, keys, node="nats", store_dir=str(folder / "store"), stream_max_bytes=2**30
    )
    config["listen"] = f"127.0.0.1:{port}"
    del config["http"]
    (folder / "nats.conf").write_bytes(msgspec.json.encode(config))
    return Settings(
        data_dir=folder,
        nats_port=port,
        nats_url=f"nats://127.0.0.1:{port}",
        nats_seed_file=folder / "credentials" / "{service}.nk",
        nats_api_prefix=API,
    )


async def _until_ready(port: int) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not await is_ready(port):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.02)


async def _consume_once(settings: Settings) -> None:
    """Publish an event of each service with its credential, and consume it with that of each."""
    brokers = {name: _broker(settings, name) for name in SERVICES}
    seen: dict[str, list[Delivery]] = {name: [] for name in SERVICES}
    subscriptions = {}
    for name, broker in brokers.items():
        await broker.start()
        subscriptions[name] = await broker.subscribe(
            name, ["orders.>", "inventory.>", "shipping.>"], seen[name].extend
        )
        subscriptions[name].want(10)
    for name, broker in brokers.items():
        await _until(lambda broker=broker: broker.connected)
        await broker.publish([Outgoing(f"{name}.tried", b"1", OWNER)] * 20)
        await broker.publish([Outgoing(f"{name}.tried", b"2", OWNER)])
    await _until(lambda: all(len(found) == 10 for found in seen.values()))
    for name, broker in brokers.items():
        subscriptions[name].ack(seen[name])
        await _until_progress(broker, name, seen[name][-1].sequence)
        assert broker.configuration_problems == ()
        await broker.stop()


def _broker(settings: Settings, name: str) -> NatsBroker:
    return NatsBroker(
        settings.broker_url,
        subjects=[*(f"{service}.>" for service in SERVICES), PROBE_SUBJECT],
        options=lambda: connection_options(settings, name),
        api_prefix=settings.nats_api_prefix,
    )


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


async def _until_progress(broker: NatsBroker, name: str, sequence: int) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while (await broker.progress([name])).consumed.get(name, 0) < sequence:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Attacker:
    """Who has stolen the credential of a service, and uses it with a client of their own."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.complaints: list[str] = []

    async def __aenter__(self) -> "Attacker":
        async def complain(error: Exception) -> None:
            self.complaints.append(str(error))

        options = connection_options(self.settings, self.name)
        self.client = await nats.connect(self.settings.broker_url, error_cb=complain, **options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()

    async def is_refused(self, subject: str, body: bytes = b"") -> bool:
        """Return whether the server refuses a publication. A request goes to where JetStream is for it."""
        subject = subject.replace("$JS.API", self.settings.nats_api_prefix)
        await self.client.publish(subject, body)
        return await self._complained(f'publish to "{subject.lower()}"')

    async def may_not_subscribe(self, subject: str) -> bool:
        """Return whether the server refuses a subscription."""
        await self.client.subscribe(subject)
        return await self._complained(f'subscription to "{subject.lower()}')

    async def _complained(self, about: str) -> bool:
        try:
            await _until(lambda: any(about in said for said in self.complaints))
        except TimeoutError:
            return False
        return True


def others(name: str) -> Sequence[str]:
    return [service for service in SERVICES if service != name]


def events_of(name: str) -> Sequence[str]:
    """Return the subjects on which a service publishes."""
    services = system.build(system.settings(), effects={})
    return [e.subject for service in services if service.name == name for e in service.publishes]


def attack(settings: Settings, name: str, scenario: Callable[[Attacker], Any]) -> None:
    """Run an attack with the credential of a service; nothing of the stream changes by it."""

    async def main() -> None:
        before = await _stream(settings)
        async with Attacker(settings, name) as attacker:
            await scenario(attacker)
        assert await _stream(settings) == before

    asyncio.run(main())


async def _stream(settings: Settings) -> Any:
    """Return the stream and its consumers, without what changes by itself."""
    client = await connect_as_operator(settings.nats_port, settings.data_dir)
    stream = json.loads((await client.request(f"$JS.API.STREAM.INFO.{STREAM}")).data)
    listed = json.loads((await client.request(f"$JS.API.CONSUMER.LIST.{STREAM}")).data)
    await client.close()
    consumers = [
        {key: each[key] for key in ("name", "config", "ack_floor", "num_pending")}
        for each in listed["consumers"]
    ]
    return stream["config"], stream["state"]["messages"], stream["state"]["last_seq"], consumers


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_publishes_events_of_another(settings: Settings, name: str) -> None:
    async def scenario(attacker: Attacker) -> None:
        for subject in (event for other in others(name) for event in events_of(other)):
            assert await attacker.is_refused(subject, b'{"forged": true}'), subject

    attack(settings, name, scenario)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_sends_receipts_in_the_name_of_another(settings: Settings, name: str) -> None:
    async def scenario(attacker: Attacker) -> None:
        for reader in others(name):
            for publisher in SERVICES:
                forged = msgspec.json.encode({"reader": reader, "ids": ["1"]})
                subject = f"receipts.{publisher}.{reader}.{OWNER}"
                assert await attacker.is_refused(subject, forged), subject
                assert await attacker.is_refused(f"receipts.{publisher}", forged)

    attack(settings, name, scenario)


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_touches_the_durable_of_another(settings: Settings, name: str) -> None:
    async def scenario(attacker: Attacker) -> None:
        for other in others(name):
            durable = f"{STREAM}.{other}"
            for request in ("MSG.NEXT", "DELETE", "PAUSE", "CREATE", "LEADER.STEPDOWN", "RESET"):
                subject = f"$JS.API.CONSUMER.{request}.{durable}"
                assert await attacker.is_refused(subject, b"{}"), subject
            assert await attacker.is_refused(f"$JS.API.CONSUMER.DURABLE.CREATE.{durable}")
            assert await attacker.is_refused(f"$JS.ACK.{durable}.1.1.1.1.0", b"+ACK")
        assert await attacker.is_refused(f"$JS.API.CONSUMER.CREATE.{STREAM}", b"{}")

    attack(settings, name, scenario)


@pytest.mark.parametrize("name", [*SERVICES, READER])
def test_only_the_operator_purges_and_deletes(settings: Settings, name: str) -> None:
    async def scenario(attacker: Attacker) -> None:
        for request in ("PURGE", "DELETE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN"):
            assert await attacker.is_refused(f"$JS.API.STREAM.{request}.{STREAM}"), request
        assert await attacker.is_refused("$JS.API.STREAM.CREATE.OTHER", b"{}")
        assert await attacker.is_refused("$JS.API.META.LEADER.STEPDOWN")
        assert await attacker.is_refused("$JS.API.ACCOUNT.PURGE.$G")
        if name != SERVICES[0]:
            assert await attacker.is_refused(f"$JS.API.STREAM.UPDATE.{STREAM}", b"{}")

    attack(settings, name, scenario)


@pytest.mark.parametrize("name", [*SERVICES, READER])
def test_no_service_listens_to_what_is_for_another(settings: Settings, name: str) -> None:
    async def scenario(attacker: Attacker) -> None:
        for other in others(name):
            for subject in (f"receipts.{other}.>", f"_INBOX_{other}.>", f"{other}.>"):
                assert await attacker.may_not_subscribe(subject), subject
        # In an account of its own, `_INBOX.>` has the replies to this service alone.
        shared = ["_INBOX.>"] if settings.nats_url is None else []
        for subject in (">", *shared, "$JS.ACK.>", "$SYS.>"):
            assert await attacker.may_not_subscribe(subject), subject

    attack(settings, name, scenario)


def test_message_that_the_server_delivers_to_a_foreign_subject_is_no_receipt(
    settings: Settings,
) -> None:
    """The server sends replies to any subject that a request names, whatever its user may publish. What it
    delivers so keeps the subject under which it was stored."""

    async def main() -> None:
        orders = _broker(settings, "orders")
        await orders.start()
        received: list[bytes] = []
        await orders.listen(f"receipts.orders.inventory.{OWNER}", received.append)
        await _until(lambda: orders.connected)
        forged = msgspec.json.encode({"reader": "inventory", "ids": ["1"]})
        async with Attacker(settings, "shipping") as attacker:
            client = attacker.client
            await client.publish("shipping.tried", forged)
            await client.publish(
                f"{settings.nats_api_prefix}.CONSUMER.MSG.NEXT.{STREAM}.shipping",
                b'{"batch": 100, "no_wait": true}',
                reply=f"receipts.orders.inventory.{OWNER}",
            )
            await client.flush()
            await orders.progress([])
        async with Attacker(settings, "inventory") as inventory:
            await inventory.client.publish(f"receipts.orders.inventory.{OWNER}", b"true")
            await inventory.client.flush()
        await _until(lambda: b"true" in received)
        assert forged not in received
        await orders.stop()

    asyncio.run(main())


@pytest.mark.parametrize("name", SERVICES)
def test_replies_that_are_sent_to_foreign_subjects_stay_in_the_account(
    settings: Settings, name: str
) -> None:
    """With permissions alone, a pull whose status is sent to `$JS.API.STREAM.DELETE.…` deletes the stream."""
    if settings.nats_url is None:
        pytest.skip("the embedded broker has one account (decision 42)")
    other = others(name)[0]
    targets = [
        *(f"$JS.API.STREAM.{request}.{STREAM}" for request in ("PURGE", "DELETE")),
        *(f"{API}.STREAM.{request}.{STREAM}" for request in ("PURGE", "DELETE")),
        f"$JS.API.CONSUMER.DELETE.{STREAM}.{other}",
        events_of(other)[0],
        f"receipts.{name}.{other}.{OWNER}",
    ]

    async def main() -> None:
        before = await _stream(settings)
        async with Attacker(settings, name) as attacker:
            client = attacker.client
            for target in targets:
                pull = msgspec.json.encode({"batch": 1, "expires": 50_000_000})
                for request, body in (
                    (f"{API}.CONSUMER.MSG.NEXT.{STREAM}.{name}", pull),
                    (f"{API}.STREAM.INFO.{STREAM}", b""),
                    (f"{API}.STREAM.MSG.GET.{STREAM}", b'{"seq": 1}'),
                    (f"{name}.tried", b""),
                ):
                    await client.publish(request, body, reply=target)
            # This one was sent after them, and is answered after them: by a message that waits, as they were,
            # or because it expires later.
            statuses: list[Any] = []
            inbox = client.new_inbox()
            await client.subscribe(inbox, cb=_collector(statuses))
            last = msgspec.json.encode({"batch": 1, "expires": 200_000_000})
            await client.publish(f"{API}.CONSUMER.MSG.NEXT.{STREAM}.{name}", last, reply=inbox)
            await _until(lambda: bool(statuses))
        config, messages, _, consumers = await _stream(settings)
        assert (config, messages) == (before[0], before[1] + len(targets))
        assert [each["name"] for each in consumers] == [each["name"] for each in before[3]]
        assert not await _has_message(settings, events_of(other)[0])

    asyncio.run(main())


def _collector(messages: list[Any]) -> Callable[[Any], Any]:
    async def collect(message: Any) -> None:
        messages.append(message)

    return collect


async def _has_message(settings: Settings, subject: str) -> bool:
    client = await connect_as_operator(settings.nats_port, settings.data_dir)
    wanted = msgspec.json.encode({"last_by_subj": subject})
    found = await client.request(f"$JS.API.STREAM.MSG.GET.{STREAM}", wanted)
    await client.close()
    return "error" not in json.loads(found.data)


def test_listener_consumes_events_and_publishes_none(settings: Settings) -> None:
    if settings.nats_url is None:
        pytest.skip("`todoku broker-config` makes listeners")

    async def main() -> None:
        broker = _broker(settings, "loyalty")
        await broker.start()
        seen: list[Delivery] = []
        subscription = await broker.subscribe("loyalty", ["orders.>"], seen.extend)
        subscription.want(1)
        await _until(lambda: bool(seen))
        subscription.ack(seen)
        with pytest.raises(BrokerUnsuitable, match="may not publish"):
            await broker.publish([Outgoing("orders.created", b"forged")])
        await broker.stop()
        async with Attacker(settings, "loyalty") as attacker:
            assert await attacker.is_refused(f"receipts.orders.inventory.{OWNER}", b"{}")
            assert await attacker.is_refused(f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.orders", b"1")

    asyncio.run(main())


@pytest.mark.parametrize("name", SERVICES)
def test_missing_permission_is_named_at_once(settings: Settings, name: str) -> None:
    async def main() -> None:
        broker = _broker(settings, name)
        await broker.start()
        await _until(lambda: broker.connected)
        subject = events_of(others(name)[0])[0]
        with pytest.raises(BrokerUnsuitable, match=f"may not publish on {subject}"):
            await broker.publish([Outgoing(subject, b"forged")])
        assert any(subject in problem for problem in broker.configuration_problems)
        await broker.stop()

    asyncio.run(main())


def test_stream_that_was_rolled_back_is_marked_by_the_service_that_may(settings: Settings) -> None:
    async def main() -> None:
        orders, shipping = (
            NatsBroker(
                settings.broker_url,
                options=lambda name=name: connection_options(settings, name),
                subjects=[*(f"{service}.>" for service in SERVICES), PROBE_SUBJECT],
                marks_roll_backs=name == "orders",
                api_prefix=settings.nats_api_prefix,
            )
            for name in ("orders", "shipping")
        )
        await orders.start()
        await shipping.start()
        await _until(lambda: orders.connected and shipping.connected)
        ended = (await shipping.progress([])).stream_epoch
        with pytest.raises(BrokerUnavailable, match="was told"):
            await shipping.begin_epoch(ended)
        async with asyncio.timeout(BOUND_SECONDS):
            while (await shipping.progress([])).stream_epoch == ended:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await orders.stop()
        await shipping.stop()

    asyncio.run(main())


def test_stranger_is_refused(settings: Settings) -> None:
    async def main() -> None:
        broker = NatsBroker(settings.broker_url, api_prefix=settings.nats_api_prefix)
        with pytest.raises(BrokerUnsuitable, match="refuses this user"):
            await broker.refuse_wrong_credentials()

    asyncio.run(main())


def test_seeds_are_kept_private_and_survive_a_wiped_broker(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    write_config(settings, SERVICES)
    seeds = {path.name: path.read_text() for path in (tmp_path / "credentials").iterdir()}
    assert set(seeds) == {f"{name}.nk" for name in (*SERVICES, OPERATOR, READER)}
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "credentials").iterdir()}
    assert modes == {0o600}

    (tmp_path / "broker" / "nats-server.json").unlink()
    write_config(settings, (*SERVICES, "loyalty"))
    later = {path.name: path.read_text() for path in (tmp_path / "credentials").iterdir()}
    assert later.items() >= seeds.items()
    assert set(later) - set(seeds) == {"loyalty.nk"}
    assert not any(seed in (tmp_path / "broker" / "nats-server.json").read_text() for seed in seeds)

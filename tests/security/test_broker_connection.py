"""Credentials and TLS for an external broker: what the settings say, and what a service does without them."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from conformance.brokers import NatsServer
from security.certificates import Authority
from todoku.broker.connection import connection_options
from todoku.broker.credentials import SeedUnusable, make_seeds, public_key, read_seed
from todoku.broker.nats import NatsBroker
from todoku.broker.port import BrokerUnavailable, BrokerUnsuitable
from todoku.host import serve
from todoku.settings import Settings, SettingsInvalid
from todoku.system import load_settings, system

BOUND_SECONDS = 20.0


def external(url: str = "nats://127.0.0.1:4222", **files: Path | str) -> Settings:
    return Settings(nats_url=url, **files)  # type: ignore[arg-type]


def broker_of(settings: Settings, name: str = "orders") -> NatsBroker:
    return NatsBroker(settings.broker_url, options=lambda: connection_options(settings, name))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_SECONDS):
        while not condition():  # noqa: ASYNC110 - nothing signals it
            await asyncio.sleep(0.01)


def written(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def test_each_service_has_a_seed_of_its_own(tmp_path: Path) -> None:
    keys = make_seeds(tmp_path / "seeds", ("orders", "shipping"))
    settings = external(nats_seed_file=tmp_path / "seeds" / "{service}.nk")
    for name, key in keys.items():
        seed = connection_options(settings, name)["nkeys_seed_str"]
        assert public_key(seed) == key
    assert len(set(keys.values())) == 2


def test_password_and_token_come_from_files(tmp_path: Path) -> None:
    path = written(tmp_path / "secret", "hunter2\n")
    with_password = external(nats_user="shop", nats_password_file=path)
    assert connection_options(with_password, "orders") == {"user": "shop", "password": "hunter2"}
    assert connection_options(external(nats_token_file=path), "orders") == {"token": "hunter2"}
    assert "hunter2" not in repr(with_password)


def test_creds_file_is_handed_to_the_client(tmp_path: Path) -> None:
    path = written(tmp_path / "orders.creds", "of nsc")
    settings = external(nats_creds_file=tmp_path / "{service}.creds")
    assert connection_options(settings, "orders") == {"user_credentials": str(path)}


@pytest.mark.parametrize(
    "setting", ["nats_seed_file", "nats_creds_file", "nats_token_file", "nats_ca_file"]
)
def test_absent_file_is_named(tmp_path: Path, setting: str) -> None:
    settings = external(**{setting: tmp_path / "absent"})
    with pytest.raises(BrokerUnsuitable, match=f"absent|{setting}"):
        connection_options(settings, "orders")


@pytest.mark.parametrize("content", ["", "SU", "not a seed", "SA" + "A" * 56, "SU" + "a" * 56])
def test_file_without_a_seed_is_named(tmp_path: Path, content: str) -> None:
    path = written(tmp_path / "orders.nk", content)
    with pytest.raises(SeedUnusable, match=r"orders\.nk"):
        read_seed(path)
    with pytest.raises(SeedUnusable, match=r"orders\.nk"):
        make_seeds(tmp_path, ("orders",))
    assert path.read_text() == content


def test_link_in_the_place_of_a_seed_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "orders.nk").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SeedUnusable):
        make_seeds(tmp_path, ("orders",))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"nats_user": "u"}, "nats_user is set without nats_password_file"),
        ({"nats_cert_file": "c"}, "nats_cert_file is set without nats_key_file"),
        ({"nats_seed_file": "a", "nats_token_file": "b"}, "set one of them"),
        ({"nats_seed_file": "a", "nats_url": ""}, "nats_url names none"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, str], problem: str
) -> None:
    environment = {"nats_url": "nats://127.0.0.1:1", **given}
    variables = {f"TODOKU_{name.upper()}": value for name, value in environment.items()}
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(environment=variables)
    assert problem in "\n".join(refused.value.problems)


def test_wrong_credentials_are_told_apart_from_an_absent_broker(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, extra="authorization { token: right }")
    server.start()

    async def scenario() -> None:
        path = written(tmp_path / "token", "wrong")
        broker = broker_of(external(server.url, nats_token_file=path))
        with pytest.raises(BrokerUnsuitable, match="check the credentials"):
            await broker.refuse_wrong_credentials()

        await broker.start()  # As later, when its database holds orders: it waits.
        await until(lambda: bool(broker.configuration_problems))
        assert "check the credentials" in broker.configuration_problems[0]
        path.write_text("right")  # The next connection reads the file again.
        await until(lambda: broker.connected)
        assert broker.configuration_problems == ()
        await broker.refuse_wrong_credentials()
        await broker.stop()

        await asyncio.to_thread(server.stop)
        await broker_of(external("nats://127.0.0.1:1")).refuse_wrong_credentials()

    try:
        asyncio.run(scenario())
    finally:
        server.stop()


def test_service_ends_at_its_first_start_only_if_the_broker_refuses_it(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    (tmp_path / "server").mkdir()
    server = NatsServer(tmp_path / "server", extra="authorization { token: right }")
    server.start()
    (port,) = free_ports(1)
    settings = system.settings(
        nats_url=server.url,
        nats_token_file=written(tmp_path / "token", "wrong"),
        data_dir=tmp_path,
        orders_port=port,
    )

    async def scenario() -> None:
        with pytest.raises(BrokerUnsuitable, match="check the credentials"):
            await serve("orders", settings, asyncio.Event())

        with sqlite3.connect(tmp_path / "orders.db") as database:
            database.execute("INSERT INTO stream_positions VALUES ('an epoch', 1)")
        database.close()
        stop = asyncio.Event()
        serving = asyncio.create_task(serve("orders", settings, stop))
        async with asyncio.timeout(BOUND_SECONDS):
            while not await asyncio.to_thread(is_ready, port):  # noqa: ASYNC110 - in a thread
                await asyncio.sleep(0.05)
        stop.set()
        await serving

    try:
        asyncio.run(scenario())
    finally:
        server.stop()


def is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_client_certificate_and_own_authority_are_used(tmp_path: Path) -> None:
    authority = Authority()
    ca = authority.write(tmp_path / "ca.pem")
    certificate, key = authority.issue(tmp_path)
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{ca}", verify: true }}'
    (tmp_path / "server").mkdir()
    server = NatsServer(tmp_path / "server", extra=tls)
    server.start()

    async def scenario() -> None:
        with_certificate = external(
            server.url, nats_ca_file=ca, nats_cert_file=certificate, nats_key_file=key
        )
        broker = broker_of(with_certificate)
        await broker.start()
        await until(lambda: broker.connected)
        await broker.stop()

        stranger = broker_of(external(server.url, nats_ca_file=ca))
        await stranger.start()
        await until(lambda: stranger.problem is not None)
        assert not stranger.connected
        await stranger.stop()

    try:
        asyncio.run(scenario())
    finally:
        server.stop()


@pytest.mark.parametrize("by", ["scheme", "authority"])
def test_no_credential_is_sent_without_tls_where_it_was_asked_for(tmp_path: Path, by: str) -> None:
    """A server in the place of the right one says that it needs no TLS."""
    sent: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"version":"2.12.0","auth_required":true,"max_payload":1048576}\r\n')
        sent.append(await reader.read(1_000))
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        token = written(tmp_path / "token", "secret")
        if by == "scheme":
            settings = external(f"tls://127.0.0.1:{port}", nats_token_file=token)
        else:
            ca = Authority().write(tmp_path / "ca.pem")
            settings = external(f"nats://127.0.0.1:{port}", nats_token_file=token, nats_ca_file=ca)
        broker = broker_of(settings)
        await broker.start()
        await until(lambda: len(sent) >= 2)
        assert isinstance(broker.problem, BrokerUnavailable)
        assert "offers no TLS" in str(broker.problem)
        await broker.stop()
        server.close()

    asyncio.run(scenario())
    assert set(sent) == {b""}


def test_names_of_credentials_are_no_names_of_services() -> None:
    assert not {"up", "reader"}.intersection(system.names)

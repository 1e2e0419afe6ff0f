"""`todoku doctor` finds what is wrong, says what to do, and changes nothing."""

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from calling import Caller, Said
from test_migrate import set_version

from todoku.cli.checks import Verdict, machine
from todoku.cli.exit_codes import ExitCode
from todoku.database.lock import FileLock
from todoku.settings import SERVICES, Settings

Checks = Mapping[str, Mapping[str, Any]]
FreePorts = Callable[[int], list[int]]


def checks(said: Said) -> Checks:
    return {finding["check"]: finding for finding in said.object["checks"]}


@pytest.fixture
def examined(todoku_alone: Caller, free_ports: FreePorts) -> Callable[..., Said]:
    """Examines where nothing runs, on free ports unless flags say otherwise."""
    names = [*(f"TODOKU_{service.upper()}_PORT" for service in SERVICES), "TODOKU_NATS_PORT"]
    ports = dict(zip(names, map(str, free_ports(4)), strict=True))

    def examine(*flags: str, json: bool = True) -> Said:
        return todoku_alone("doctor", *["--json"] * json, *flags, **ports)

    return examine


@contextlib.contextmanager
def greeting(line: bytes) -> Iterator[int]:
    """Somebody who says this to whoever connects; the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(line)

        thread = threading.Thread(target=greet)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_where_nothing_runs_all_is_well_and_nothing_is_changed(
    examined: Callable[..., Said], tmp_path: Path
) -> None:
    said = examined()

    assert said.code == ExitCode.OK
    assert Verdict.WRONG not in [finding["verdict"] for finding in checks(said).values()]
    for service in SERVICES:
        assert checks(said)[f"{service} port"]["found"].endswith(", free")
        assert "not there yet" in checks(said)[f"{service} database"]["found"]
    assert checks(said)["broker port"]["found"].endswith(", free")
    assert list(tmp_path.iterdir()) == []


def test_a_running_todoku_is_recognised_with_its_broker_and_databases(
    todoku: Caller, running_data: Path
) -> None:
    said = todoku.ok("doctor", "--json", "--data-dir", str(running_data))

    found = {check: finding["found"] for check, finding in checks(said).items()}
    for service in SERVICES:
        assert "served by todoku " in found[f"{service} port"]
        assert found[f"{service} clock"] == "as this machine's, to the second"
        assert f"todoku run {service})" in found[f"{service} database"]
    assert found["broker"].startswith("nats-server 2.")
    assert found["stream"].startswith("TODOKU, ")
    assert "todoku up" in found["data folder"]


def test_people_read_a_line_a_check_and_a_summary(examined: Callable[..., Said]) -> None:
    said = examined("--nats-url", "nats://127.0.0.1:1", json=False)

    assert re.search(r"^wrong +broker ", said.out, re.MULTILINE)
    assert "→ start it, or correct --nats-url" in said.out
    assert re.fullmatch(r"todoku: \d+ checks: 1 wrong, \d warnings?\n", said.err)


def test_a_database_that_is_not_where_its_service_runs_is_worth_a_warning(
    todoku: Caller, tmp_path: Path
) -> None:
    """Somebody has deleted it, or looks into the wrong folder."""
    said = todoku("doctor", "--json", "--data-dir", str(tmp_path / "elsewhere"))

    assert checks(said)["orders database"]["verdict"] == Verdict.WARNING
    assert "though the service runs" in checks(said)["orders database"]["found"]
    assert "--data-dir" in checks(said)["orders database"]["fix"]


def test_a_port_in_other_hands_is_wrong_and_names_its_flag(examined: Callable[..., Said]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        said = examined("--orders-port", str(rival.getsockname()[1]))

    assert said.code == ExitCode.FAILED
    assert checks(said)["orders port"]["verdict"] == Verdict.WRONG
    assert "--orders-port" in checks(said)["orders port"]["fix"]


@pytest.mark.parametrize(
    ("line", "found", "fix"),
    [
        (
            b'INFO {"version": "2.11.4", "jetstream": true}\r\n',
            "nats-server 2.11.4",
            "run nats-server 2.12 or newer",
        ),
        (b'INFO {"version": "2.12.0"}\r\n', "without JetStream", "`--jetstream`"),
        (b"SSH-2.0-OpenSSH\r\n", "no NATS server answers", "--nats-url"),
        (b"INFO nonsense\r\n", "no NATS server answers", "--nats-url"),
    ],
)
def test_a_broker_that_cannot_serve_is_wrong(
    line: bytes, found: str, fix: str, examined: Callable[..., Said]
) -> None:
    with greeting(line) as port:
        said = examined("--nats-url", f"nats://me:secret@127.0.0.1:{port}")

    finding = checks(said)["broker"]
    assert said.code == ExitCode.FAILED
    assert finding["verdict"] == Verdict.WRONG
    assert found in finding["found"]
    assert fix in finding["fix"]
    assert "secret" not in said.out


def test_an_external_broker_that_is_away_is_wrong(examined: Callable[..., Said]) -> None:
    said = examined("--nats-url", "nats://127.0.0.1:1")

    assert checks(said)["broker"]["verdict"] == Verdict.WRONG
    assert "orders are taken and wait" in checks(said)["broker"]["fix"]


def test_a_data_folder_that_is_a_file_is_wrong(
    examined: Callable[..., Said], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("")

    finding = checks(examined("--data-dir", "data"))["data folder"]

    assert finding["verdict"] == Verdict.WRONG
    assert "--data-dir" in finding["fix"]


def test_a_newer_database_is_wrong_and_an_older_one_a_warning(
    todoku_alone: Caller, examined: Callable[..., Said]
) -> None:
    data = todoku_alone.folder / "todoku-data"
    todoku_alone.ok("migrate")
    set_version(data, "orders", "9999")
    set_version(data, "shipping", "0000")

    found = checks(examined())

    assert found["orders database"]["verdict"] == Verdict.WRONG
    assert "newer" in found["orders database"]["fix"]
    assert found["inventory database"]["verdict"] == Verdict.OK
    assert found["shipping database"]["verdict"] == Verdict.WARNING
    assert "`todoku migrate shipping`" in found["shipping database"]["fix"]


def test_who_uses_the_data_folder_is_told(
    todoku_alone: Caller, examined: Callable[..., Said]
) -> None:
    data = todoku_alone.folder / "todoku-data"
    data.mkdir()
    lock = FileLock(data / "up.lock")
    try:
        found = checks(examined())["data folder"]["found"]
    finally:
        lock.release()

    assert ", in use by process " in found


def test_too_little_room_on_the_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def free(count: int) -> None:
        usage = type("Usage", (), {"free": count})
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    settings = Settings(data_dir=tmp_path)
    verdicts = []
    for count in (2**20, 2**29, 2**40):
        free(count)
        findings = {finding.check: finding for finding in machine.disk(settings)}
        verdicts.append(findings["disk space"].verdict)

    assert verdicts == [Verdict.WRONG, Verdict.WARNING, Verdict.OK]


def test_a_clock_that_went_back_is_said(tmp_path: Path) -> None:
    database = tmp_path / "orders.db"
    database.write_text("")
    os.utime(database, (time.time() + 3_600,) * 2)

    (finding,) = machine.clock(Settings(data_dir=tmp_path))

    assert finding.verdict is Verdict.WARNING
    assert "the clock went back" in finding.found


def test_the_output_is_json_also_when_something_is_wrong(examined: Callable[..., Said]) -> None:
    said = examined("--nats-url", "nats://127.0.0.1:1")

    assert json.loads(said.out)["verdict"] == Verdict.WRONG
    assert said.err == ""

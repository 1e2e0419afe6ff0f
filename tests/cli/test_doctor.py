"""`todoku doctor` finds problems, suggests fixes, and changes nothing."""

import contextlib
import errno
import json
import os
import re
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from calling import Caller, CommandResult
from test_migrate import set_version

from end_to_end.running import PORT_COUNT
from todoku.cli.checks import machine, network
from todoku.cli.exit_codes import ExitCode
from todoku.database.lock import FileLock
from todoku.diagnosis import CheckStatus
from todoku.settings import Settings
from todoku.system import system

Checks = Mapping[str, Mapping[str, Any]]
FreePorts = Callable[[int], list[int]]


def checks(result: CommandResult) -> Checks:
    return {check["check"]: check for check in result.object["checks"]}


@pytest.fixture
def examined(todoku_alone: Caller, free_ports: FreePorts) -> Callable[..., CommandResult]:
    """Runs `doctor` where nothing runs, on free ports unless flags give others."""
    names = [*(f"TODOKU_{service.upper()}_PORT" for service in system.names), "TODOKU_NATS_PORT"]
    ports = dict(zip(names, map(str, free_ports(PORT_COUNT)), strict=True))

    def examine(*flags: str, json: bool = True, **variables: str) -> CommandResult:
        return todoku_alone("doctor", *["--json"] * json, *flags, **ports, **variables)

    return examine


@contextlib.contextmanager
def greeting(line: bytes) -> Iterator[int]:
    """A server that sends this to every client; yields its port."""
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


def test_stopped_system_has_no_problems_and_is_not_changed(
    examined: Callable[..., CommandResult], tmp_path: Path
) -> None:
    result = examined()

    assert result.code == ExitCode.OK
    assert CheckStatus.WRONG not in [result["verdict"] for result in checks(result).values()]
    for service in system.names:
        assert checks(result)[f"{service} port"]["found"].endswith(", free")
        assert "does not exist yet" in checks(result)[f"{service} database"]["found"]
    assert checks(result)["broker port"]["found"].endswith(", free")
    assert list(tmp_path.iterdir()) == []


def test_running_system_is_recognised_with_broker_and_databases(
    todoku: Caller, running_data: Path
) -> None:
    result = todoku.ok("doctor", "--json", "--data-dir", str(running_data))

    found = {name: check["found"] for name, check in checks(result).items()}
    for service in system.names:
        assert "served by todoku " in found[f"{service} port"]
        assert found[f"{service} clock"] == "within 3 s of this machine's"
        assert f"todoku run {service})" in found[f"{service} database"]
    assert found["broker"].startswith("nats-server 2.")
    assert found["stream"].startswith("TODOKU, ")
    assert "todoku up" in found["data folder"]


def test_running_system_is_asked_for_its_settings(
    todoku: Caller, todoku_alone: Caller, running_data: Path
) -> None:
    """Ports and addresses that were given to `up` in another shell are unknown here."""
    result = todoku_alone.ok("doctor", "--json", "--data-dir", str(running_data))

    found = {name: check["found"] for name, check in checks(result).items()}
    assert "those of the running `todoku up`" in found["settings"]
    for service in system.names:
        assert "served by todoku " in found[f"{service} port"]
    assert found["broker"].startswith("nats-server 2.")


def test_text_output_has_one_line_per_check_and_summary(
    examined: Callable[..., CommandResult],
) -> None:
    result = examined("--nats-url", "nats://127.0.0.1:1", json=False)

    assert re.search(r"^wrong +broker ", result.out, re.MULTILINE)
    assert "→ start it, or correct --nats-url" in result.out
    assert re.fullmatch(r"todoku: \d+ checks: 1 error, \d warnings?\n", result.err)


def test_missing_database_of_running_service_is_a_warning(todoku: Caller, tmp_path: Path) -> None:
    """The file was deleted, or the folder is the wrong one."""
    result = todoku("doctor", "--json", "--data-dir", str(tmp_path / "elsewhere"))

    assert checks(result)["orders database"]["verdict"] == CheckStatus.WARNING
    assert "though the service runs" in checks(result)["orders database"]["found"]
    assert "--data-dir" in checks(result)["orders database"]["fix"]


def test_port_used_by_another_program_is_wrong_and_names_flag(
    examined: Callable[..., CommandResult],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as rival:
        result = examined("--orders-port", str(rival.getsockname()[1]))

    assert result.code == ExitCode.FAILED
    assert checks(result)["orders port"]["verdict"] == CheckStatus.WRONG
    assert "--orders-port" in checks(result)["orders port"]["fix"]


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
def test_unsuitable_broker_is_wrong(
    line: bytes, found: str, fix: str, examined: Callable[..., CommandResult]
) -> None:
    with greeting(line) as port:
        result = examined(TODOKU_NATS_URL=f"nats://me:secret@127.0.0.1:{port}")

    check = checks(result)["broker"]
    assert result.code == ExitCode.FAILED
    assert check["verdict"] == CheckStatus.WRONG
    assert found in check["found"]
    assert fix in check["fix"]
    assert "secret" not in result.out


def test_unreachable_external_broker_is_wrong(examined: Callable[..., CommandResult]) -> None:
    result = examined("--nats-url", "nats://127.0.0.1:1")

    assert checks(result)["broker"]["verdict"] == CheckStatus.WRONG
    assert "orders are accepted but not processed" in checks(result)["broker"]["fix"]


def test_file_as_data_folder_is_wrong(
    examined: Callable[..., CommandResult], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("")

    result = checks(examined("--data-dir", "data"))["data folder"]

    assert result["verdict"] == CheckStatus.WRONG
    assert "--data-dir" in result["fix"]


def test_newer_database_is_wrong_and_older_one_a_warning(
    todoku_alone: Caller, examined: Callable[..., CommandResult]
) -> None:
    data = todoku_alone.folder / "todoku-data"
    todoku_alone.ok("migrate")
    set_version(data, "orders", "9999")
    set_version(data, "shipping", "0000")

    found = checks(examined())

    assert found["orders database"]["verdict"] == CheckStatus.WRONG
    assert "newer" in found["orders database"]["fix"]
    assert found["inventory database"]["verdict"] == CheckStatus.OK
    assert found["shipping database"]["verdict"] == CheckStatus.WARNING
    assert "`todoku migrate shipping`" in found["shipping database"]["fix"]


def test_database_that_holds_its_recovery_is_wrong_and_says_what_to_do(
    todoku_alone: Caller, examined: Callable[..., CommandResult]
) -> None:
    todoku_alone.ok("migrate")
    inventory = sqlite3.connect(todoku_alone.folder / "todoku-data" / "inventory.db")
    with inventory:
        inventory.execute(
            """INSERT INTO dead_letters (id, subject, body, parked_at, attempts, error, state)
               VALUES ('l', 's', x'00', 0, 1, 'ReplayFailed: StockLost: …', 'PARKED')"""
        )
    inventory.close()

    found = checks(examined())["inventory database"]

    assert found["verdict"] == CheckStatus.WRONG
    assert "the service decides nothing" in found["found"]
    assert "`todoku dead retry --all --service inventory`" in found["fix"]


def test_event_that_waits_for_long_and_parked_messages_are_reported(
    todoku_alone: Caller, examined: Callable[..., CommandResult]
) -> None:
    """Whatever keeps an order from going on, `doctor` does not say that all is well."""
    todoku_alone.ok("migrate")
    orders = sqlite3.connect(todoku_alone.folder / "todoku-data" / "orders.db")
    an_hour_ago, now = (int((time.time() - seconds) * 1e6) for seconds in (3_600, 0))
    with orders:
        orders.executemany(
            "INSERT INTO outbox VALUES (?, ?, 'a', ?, 's', x'00', ?)",
            [
                ("e1", "inventory", 1, an_hour_ago),
                ("e2", "inventory", 2, now),
                ("e2", "shipping", 2, now),
            ],
        )
        orders.execute(
            """INSERT INTO dead_letters (id, subject, body, parked_at, attempts, error, state)
               VALUES ('l', 's', x'00', 0, 1, 'ValueError: …', 'PARKED')"""
        )
    orders.close()

    found = checks(examined())["orders database"]

    assert found["verdict"] == CheckStatus.WARNING
    assert "1 message parked: ValueError" in found["found"]
    assert "2 events not yet confirmed by inventory, the oldest for 1h" in found["found"]
    assert "shipping" not in found["found"]
    assert (
        "see `todoku dead list --service orders`; once the cause is gone, `todoku dead"
        in found["fix"]
    )


def test_process_that_uses_data_folder_is_named(
    todoku_alone: Caller, examined: Callable[..., CommandResult]
) -> None:
    data = todoku_alone.folder / "todoku-data"
    data.mkdir()
    lock = FileLock(data / "up.lock")
    try:
        found = checks(examined())["data folder"]["found"]
    finally:
        lock.release()

    assert ", in use by process " in found


def test_low_disk_space_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def free(count: int) -> None:
        usage = type("Usage", (), {"free": count})
        monkeypatch.setattr("shutil.disk_usage", lambda _: usage)

    settings = Settings(data_dir=tmp_path)
    verdicts = []
    for count in (2**20, 2**29, 2**40):
        free(count)
        results = {result.check: result for result in machine.disk(settings)}
        verdicts.append(results["disk space"].verdict)

    assert verdicts == [CheckStatus.WRONG, CheckStatus.WARNING, CheckStatus.OK]


def test_full_disk_is_reported_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    results = {result.check: result for result in machine.disk(Settings(data_dir=tmp_path))}

    assert results["disk sync"].verdict is CheckStatus.WRONG
    assert "No space left on device" in results["disk sync"].found


@pytest.mark.parametrize(
    ("seconds", "difference"), [(-28_800, -28_800), (0, 0), (4.9, 0), (5, 0), (28_805, 28_800)]
)
def test_round_trip_is_subtracted_from_difference_of_clocks(
    seconds: float, difference: float
) -> None:
    """A busy machine that takes 5 s to respond is not said to have a wrong clock."""
    asked = datetime(2030, 1, 1, tzinfo=UTC)

    found = network.difference_seconds(
        asked + timedelta(seconds=seconds), asked, asked + timedelta(seconds=5)
    )

    assert found == difference


def test_engine_whose_clock_is_wrong_is_reported() -> None:
    running = {
        "orders": network.RunningService("1.0.0", -28_800.0),
        "shipping": network.RunningService("1.0.0", -0.2),
    }

    wrong, right = network.clocks(running)

    assert (wrong.verdict, right.verdict) == (CheckStatus.WARNING, CheckStatus.OK)
    assert "differs by -28,800 s" in wrong.found


def test_clock_that_went_back_is_reported(tmp_path: Path) -> None:
    database = tmp_path / "orders.db"
    database.write_text("")
    os.utime(database, (time.time() + 3_600,) * 2)

    (result,) = machine.clock(Settings(data_dir=tmp_path))

    assert result.verdict is CheckStatus.WARNING
    assert "the clock went back" in result.found


def test_json_output_also_for_problems(
    examined: Callable[..., CommandResult],
) -> None:
    result = examined("--nats-url", "nats://127.0.0.1:1")

    assert json.loads(result.out)["verdict"] == CheckStatus.WRONG
    assert result.err == ""

"""The `todoku` command, called as a process."""

import inspect
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.cells import cell_len

from todoku.broker.embedded import find_server
from todoku.cli import COMMANDS, application
from todoku.cli.exit_codes import ExitCode
from todoku.cli.flags import ADDRESSES
from todoku.database.lock import FileLock
from todoku.system import system

FreePorts = Callable[[int], list[int]]
GROUPS = {"dead", "order", "product", "shipment", "events", "person", "key"}
WITHOUT_SETTINGS = {"chaos", "simulate", "pause", "pauses", "resume", "audit", "whoami", "docs"} | {
    "login",
    "logout",
}
COLUMNS = 80
HEAVY = ("starlette", "sqlalchemy", "nats", "alembic", "uvicorn", "structlog")


def todoku(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TODOKU_")}
    return subprocess.run(
        [sys.executable, "-m", "todoku", *arguments],
        cwd=folder,
        env={**kept, "NO_COLOR": "1", "COLUMNS": "100", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_top_help_lists_all_commands_and_exit_codes(tmp_path: Path) -> None:
    answer = todoku("--help", folder=tmp_path)

    assert answer.returncode == ExitCode.OK
    assert all(f"{name} " in answer.stdout for name in COMMANDS)
    assert all(f"{code.value}  {code.meaning}" in answer.stdout for code in ExitCode)


def test_help_imports_no_heavy_library(tmp_path: Path) -> None:
    code = "import sys; from todoku.cli import application; application().help_print()"
    code += f"; sys.exit(', '.join(name for name in {HEAVY} if name in sys.modules))"

    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert answer.stderr.strip() == ""


@pytest.fixture
def help_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that prints the help of a command, in this process."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")

    def print_help(*command: str) -> str:
        application(command[0])([*command, "--help"])
        return capsys.readouterr().out

    return print_help


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - GROUPS))
def test_command_help_has_flags_and_example_but_no_exit_codes(
    name: str, help_of: Callable[..., str]
) -> None:
    text = help_of(name)

    assert text.startswith(f"Usage: todoku {name}")
    if name not in WITHOUT_SETTINGS:
        assert all(setting.flag in text for setting in system.declared.values())
    assert f"    todoku {name}" in text, "no example"
    assert "Exit codes" not in text
    assert callable(application()[name].default_command)


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_subcommand_help_has_flags_and_example(name: str, help_of: Callable[..., str]) -> None:
    group = application()[name]
    commands = [command for command in group if not command.startswith("-")]

    assert commands
    for command in commands:
        text = help_of(name, command)
        assert all(system.declared[setting].flag in text for setting in ADDRESSES)
        assert "--json" in text
        assert f"    todoku {name} {command}" in text, "no example"
        assert "Exit codes" not in text


def test_help_fits_a_terminal_so_that_its_examples_can_be_copied() -> None:
    """An example that is wrapped is another command. Tables of flags may be wrapped."""
    for name in COMMANDS:
        group = application(name)[name]
        parts = [part for part in group if not part.startswith("-")]
        for command in [group[part] for part in parts] or [group]:
            text = inspect.getdoc(command.default_command) or ""
            lines = text.partition("\nParameters\n")[0].splitlines()
            assert "For example:" in lines
            assert [line for line in lines if cell_len(line) > COLUMNS] == [], command.name


def test_help_of_a_command_exits_with_ok(tmp_path: Path) -> None:
    answer = todoku("config", "--help", folder=tmp_path)

    assert answer.returncode == ExitCode.OK
    assert answer.stdout.startswith("Usage: todoku config")


def test_version_is_printed(tmp_path: Path) -> None:
    assert re.fullmatch(r"todoku \d+\.\d+\.\d+\n", todoku("--version", folder=tmp_path).stdout)


@pytest.mark.parametrize("arguments", [("upp",), ("config", "--port", "1"), ("run", "payments")])
def test_invalid_arguments_are_usage_errors(arguments: tuple[str, ...], tmp_path: Path) -> None:
    answer = todoku(*arguments, folder=tmp_path)

    assert answer.returncode == ExitCode.USAGE
    assert answer.stdout == ""
    assert "Error" in answer.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("backup", ""),
        ("broker-config", ""),
        ("chaos", "--seconds", "nan"),
        ("chaos", "--held-share", "nan"),
        ("order", "watch", "x", "--timeout", "nan"),
        ("order", "watch", "x", "--timeout", "-1"),
    ],
)
def test_what_is_empty_or_not_a_number_is_a_usage_error(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        application(arguments[0])(arguments)

    assert ended.value.code == ExitCode.USAGE
    assert "Must " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("pause", "carrier"), 'Command "pause" parameter --reason is missing.'),
        (("pause", "--reason"), 'Command "pause" parameter --reason requires an argument.'),
        (("order", "hold", "x", "--holder", "y"), "parameter --reason is missing."),
        (("order", "show"), "parameter ID is missing."),
    ],
)
def test_missing_parameter_differs_from_one_without_value(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        application(arguments[0])(arguments)

    assert ended.value.code == ExitCode.USAGE
    assert expected in " ".join(capsys.readouterr().err.split())


def test_config_shows_value_and_source_of_each_setting(tmp_path: Path) -> None:
    (tmp_path / "todoku.toml").write_text("shipping_port = 3")

    answer = todoku(
        *("config", "--orders-port", "1", "--demo-catalogue"),
        folder=tmp_path,
        environment={"TODOKU_INVENTORY_PORT": "2", "TODOKU_NATS_URL": "nats://me:secret@broker"},
    )

    rows = {name: rest for name, *rest in map(str.split, answer.stdout.splitlines())}
    assert rows["orders_port"] == ["1", "flag", "--orders-port"]
    assert rows["inventory_port"] == ["2", "environment", "TODOKU_INVENTORY_PORT"]
    assert rows["shipping_port"] == ["3", "file", str(tmp_path / "todoku.toml")]
    assert rows["nats_port"] == ["4222", "default"]
    assert rows["demo_catalogue"][0] == "true"
    assert rows["nats_url"][0] == "nats://***@broker"
    assert list(rows) == list(system.declared)


def test_config_json_is_one_object_keyed_by_name(tmp_path: Path) -> None:
    answer = todoku("config", "--json", "--orders-port", "1", folder=tmp_path)

    settings = json.loads(answer.stdout)
    assert list(settings) == list(system.declared)
    assert settings["orders_port"]["value"] == 1
    assert settings["orders_port"]["origin"] == "flag"
    assert settings["nats_url"]["value"] is None
    assert settings["carrier_delay_seconds"]["value"] == "1..3"


def test_warnings_go_to_stderr_and_data_to_stdout(tmp_path: Path) -> None:
    answer = todoku("config", folder=tmp_path, environment={"TODOKU_ORDER_PORT": "1"})

    assert "Did you mean TODOKU_ORDERS_PORT?" in answer.stderr
    assert "Did you mean" not in answer.stdout


@pytest.mark.parametrize("arguments", [("config",), ("up",), ("run", "orders")])
def test_invalid_setting_is_explained_without_traceback(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    answer = todoku(*arguments, folder=tmp_path, environment={"TODOKU_ORDERS_PORT": "x"})

    assert answer.returncode == ExitCode.USAGE
    assert answer.stderr.startswith("todoku: orders_port cannot be 'x'")
    assert "Traceback" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_up_refuses_data_folder_in_use(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "up.lock")
    try:
        answer = todoku("up", "--data-dir", str(tmp_path), folder=tmp_path)
    finally:
        lock.release()

    assert answer.returncode == ExitCode.IN_USE
    assert f"the data folder {tmp_path} is in use" in answer.stderr


def test_up_with_taken_port_starts_nothing(tmp_path: Path, free_ports: FreePorts) -> None:
    orders, inventory, nats = free_ports(3)
    with socket.create_server(("127.0.0.1", 0)) as rival:
        taken = rival.getsockname()[1]
        answer = todoku(
            *("up", "--orders-port", str(orders), "--inventory-port", str(inventory)),
            *("--shipping-port", str(taken), "--nats-port", str(nats)),
            folder=tmp_path,
        )

    assert answer.returncode == ExitCode.CANNOT_START
    assert f"port {taken}, wanted by shipping, is in use by " in answer.stderr
    assert "--shipping-port" in answer.stderr
    assert [path.name for path in (tmp_path / "todoku-data").iterdir()] == ["up.lock"]


def test_up_with_unsuitable_broker_gives_reason_and_starts_nothing(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    (port,) = free_ports(1)
    without_jetstream = [str(find_server().path), "-a", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(without_jetstream, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            next(line for line in server.stderr if "Server is ready" in line)
            url = f"nats://me:secret@127.0.0.1:{port}"
            answer = todoku("up", folder=tmp_path, environment={"TODOKU_NATS_URL": url})
        finally:
            server.kill()

    assert answer.returncode == ExitCode.CANNOT_START
    assert f"the broker at nats://***@127.0.0.1:{port} is unsuitable" in answer.stderr
    assert "start it with `--jetstream`" in answer.stderr
    assert answer.stdout == ""


def test_run_names_process_that_uses_database(tmp_path: Path, free_ports: FreePorts) -> None:
    (port,) = free_ports(1)
    code = "from todoku import cli, host; host.LOCK_WAIT_SECONDS = 0.1; cli.main()"
    lock = FileLock(tmp_path / "orders.db.lock")
    try:
        answer = subprocess.run(
            [sys.executable, "-c", code, "run", "orders", "--orders-port", str(port)],
            env={**os.environ, "TODOKU_DATA_DIR": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        lock.release()

    assert answer.returncode == ExitCode.IN_USE
    first, last = answer.stderr.splitlines()
    assert first.startswith(f"todoku: orders: its database is in use by process {os.getpid()} ")
    assert "Stop that process" in last


def test_run_with_unreachable_database_exits_with_busy(
    tmp_path: Path, free_ports: FreePorts
) -> None:
    """So `up` goes on trying, as it does not with settings that cannot work."""
    orders, nobody = free_ports(2)
    answer = todoku(
        *("run", "orders", "--orders-port", str(orders)),
        *("--orders-database-url", f"postgresql://127.0.0.1:{nobody}/orders"),
        folder=tmp_path,
    )

    assert answer.returncode == ExitCode.BUSY
    assert answer.stderr.startswith("todoku: orders: PostgreSQL: ")


def test_up_and_run_refuse_file_as_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    for command in (("up",), ("run", "orders")):
        answer = todoku(*command, "--data-dir", "data", folder=tmp_path)

        assert answer.returncode == ExitCode.CANNOT_START
        assert f"the data folder {tmp_path / 'data'} cannot be created" in answer.stderr


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--nats-url", "nats://me:secret@broker"),
        ("--nats-url", "nats://secret@broker"),
        ("--orders-database-url", "postgresql://me:secret@db/orders"),
        ("--orders-database-url", "postgresql://db/orders?password=secret"),
    ],
)
@pytest.mark.parametrize("command", ["config", "doctor", "up"])
def test_secret_in_flag_is_refused_with_advice(
    command: str, flag: str, value: str, tmp_path: Path
) -> None:
    answer = todoku(command, flag, value, folder=tmp_path)

    variable = system.declared[flag.removeprefix("--").replace("-", "_")].variable
    assert answer.returncode == ExitCode.USAGE
    assert f"Set {variable}, or {variable}_FILE" in answer.stderr
    assert "secret" not in answer.stderr + answer.stdout


def test_user_without_password_is_accepted_in_flag(tmp_path: Path) -> None:
    answer = todoku("config", "--orders-database-url", "postgresql://me@db/orders", folder=tmp_path)

    assert answer.returncode == ExitCode.OK


def test_config_of_running_up_needs_one(tmp_path: Path) -> None:
    answer = todoku("config", "--running", folder=tmp_path)

    assert answer.returncode == ExitCode.UNREACHABLE
    assert f"no `todoku up` runs on the data folder {tmp_path / 'todoku-data'}" in answer.stderr


@pytest.mark.parametrize("module", ["todoku.cli", "cyclopts", "todoku.cli.verify"])
def test_ctrl_c_while_modules_are_imported_gives_no_traceback(module: str, tmp_path: Path) -> None:
    """Ctrl-C comes when the given module is about to be imported."""
    code = f"""
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
from todoku.__main__ import main
main()
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, "verify"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert answer.returncode == ExitCode.INTERRUPTED
    assert answer.stderr == ""


def test_unexpected_error_is_printed_without_its_secrets(tmp_path: Path) -> None:
    """A plug-in may quote an address in what it raises."""
    (tmp_path / "fragile.py").write_text(
        "def make(settings):\n    raise ConnectionError('https://me:secret@carrier.example: away')\n"
    )
    variables = {"PYTHONPATH": str(tmp_path), "TODOKU_CARRIER": "fragile:make"}
    answer = todoku("run", "shipping", folder=tmp_path, environment=variables)

    assert answer.returncode == ExitCode.FAILED
    assert "ConnectionError: https://***@carrier.example: away" in answer.stderr
    assert "secret" not in answer.stderr

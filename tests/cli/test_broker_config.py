"""`todoku broker-config`: the files that it writes. What they permit is tested in tests/security."""

import json
import subprocess
from pathlib import Path

import pytest
from calling import Caller

from todoku.broker.embedded import find_server
from todoku.cli.broker_config import broker_config
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.system import system


def test_node_and_credentials_are_written_for_their_owner_only(tmp_path: Path) -> None:
    written = Caller(tmp_path).ok("broker-config", "nats", "--listener", "loyalty").out

    seeds = {path.stem for path in (tmp_path / "nats" / "credentials").glob("*.nk")}
    assert seeds == {*system.names, "up", "reader", "loyalty"}
    files = [path for path in (tmp_path / "nats").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert "TODOKU_NATS_API_PREFIX='$TODOKU.API'" in written
    config = (tmp_path / "nats" / "nats.conf").read_text()
    assert not any(path.read_text().strip() in config for path in files if path.suffix == ".nk")
    assert is_valid(tmp_path / "nats" / "nats.conf")


def test_seeds_are_kept_when_a_listener_joins(tmp_path: Path) -> None:
    broker_config(tmp_path / "nats")
    folder = tmp_path / "nats" / "credentials"
    before = {path.name: path.read_text() for path in folder.iterdir()}

    broker_config(tmp_path / "nats", listener=("loyalty",))
    after = {path.name: path.read_text() for path in folder.iterdir()}

    assert after.items() >= before.items()
    assert after.keys() - before.keys() == {"loyalty.nk"}


def test_nodes_of_a_cluster_know_each_other_by_a_password(tmp_path: Path) -> None:
    nodes = ("n1", "n2", "n3")
    broker_config(tmp_path / "nats", node=nodes)

    configs = [json.loads((tmp_path / "nats" / f"{node}.conf").read_text()) for node in nodes]
    assert [config["server_name"] for config in configs] == list(nodes)
    (password,) = {config["cluster"]["authorization"]["password"] for config in configs}
    assert len(password) == 48
    assert all(f":{password}@n2:6222" in config["cluster"]["routes"][1] for config in configs)
    assert configs[0]["accounts"] == configs[2]["accounts"]
    assert is_valid(tmp_path / "nats" / "n1.conf")


@pytest.mark.parametrize("listener", [("orders",), ("up",), ("Loyalty",), ("a", "a")])
def test_listener_that_cannot_be_called_so_is_refused(
    tmp_path: Path, listener: tuple[str, ...]
) -> None:
    with pytest.raises(CommandFailed, match="listener cannot be called") as refused:
        broker_config(tmp_path / "nats", listener=listener)
    assert refused.value.exit_code == ExitCode.USAGE
    assert not (tmp_path / "nats").exists()


@pytest.mark.parametrize("nodes", [("a", "b"), ("a/b",), ("a", "a", "b")])
def test_nodes_that_form_no_cluster_are_refused(tmp_path: Path, nodes: tuple[str, ...]) -> None:
    with pytest.raises(CommandFailed):
        broker_config(tmp_path / "nats", node=nodes)
    assert not (tmp_path / "nats").exists()


def is_valid(config: Path) -> bool:
    """Return whether nats-server takes this configuration."""
    command = [find_server().path, "-t", "--config", str(config)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0

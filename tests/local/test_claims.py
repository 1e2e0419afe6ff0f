"""Tests of the claims on data folder and ports, and of their messages."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from todoku.local import claims
from todoku.local.claims import Port, data_folder, make_data_folder, require_free
from todoku.local.errors import Contradictory, InUse, LocalError, Unavailable

FreePorts = Callable[[int], list[int]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait: these tests have no ending processes."""
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0.0)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def port(number: int, name: str = "orders", host: str = "127.0.0.1") -> Port:
    return Port(host, number, name, f"--{name}-port")


def failure(claim: Callable[[], object]) -> LocalError:
    with pytest.raises(LocalError) as raised:
        claim()
    return raised.value


def test_free_ports_are_accepted(free_ports: FreePorts) -> None:
    one, two = free_ports(2)

    require_free([port(one), port(two, "shipping")])


def test_taken_port_is_named_with_its_flag(taken_port: int) -> None:
    error = failure(lambda: require_free([port(taken_port)]))

    assert f"port {taken_port}, wanted by orders, is in use by " in str(error)
    assert "Stop that program, or choose another port with --orders-port." in str(error)
    assert type(error) is Unavailable


def test_all_taken_ports_are_named_at_once(taken_port: int, free_ports: FreePorts) -> None:
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        second = other.getsockname()[1]
        wanted = [port(taken_port), port(free, "inventory"), port(second, "shipping")]

        error = failure(lambda: require_free(wanted))

    first_line, second_line, advice = str(error).splitlines()
    assert f"port {taken_port}, wanted by orders" in first_line
    assert f"port {second}, wanted by shipping" in second_line
    assert "--port-base" in advice


def test_port_that_becomes_free_in_time_is_accepted(
    free_ports: FreePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a `kill -9` of `up`: what it had started takes a moment to end."""
    (number,) = free_ports(1)
    dying = socket.create_server(("127.0.0.1", number))
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 30.0)
    monkeypatch.setattr(time, "sleep", lambda _: dying.close())

    require_free([port(number)])


def test_port_in_time_wait_is_free() -> None:
    """The kernel keeps the address for a minute; a restart must not have to wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", number))
        connection, _ = server.accept()
        connection.close()
        client.recv(1)
        client.close()

    require_free([port(number)])


def test_one_port_for_two_programs_is_refused() -> None:
    error = failure(lambda: require_free([port(1), port(2, "inventory"), port(2, "shipping")]))

    assert "port 2 is wanted by inventory and shipping" in str(error)
    assert type(error) is Contradictory


def test_foreign_address_is_explained(free_ports: FreePorts) -> None:
    (number,) = free_ports(1)

    error = failure(lambda: require_free([port(number, host="192.0.2.1")]))

    assert f"orders cannot listen on 192.0.2.1, port {number}: " in str(error)
    assert "--host" in str(error)


def test_data_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"

    with data_folder(folder):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_data_folder_is_locked(tmp_path: Path) -> None:
    with data_folder(tmp_path):
        error = failure(lambda: data_folder(tmp_path).__enter__())

    assert f"the data folder {tmp_path} is in use by another `todoku up`" in str(error)
    assert "--data-dir" in str(error)
    assert type(error) is InUse
    with data_folder(tmp_path):
        pass


@pytest.mark.parametrize("below", ["", "deeper"])
def test_file_in_place_of_data_folder_is_explained(tmp_path: Path, below: str) -> None:
    in_the_way = tmp_path / "data"
    in_the_way.write_text("")
    folder = in_the_way / below

    error = failure(lambda: make_data_folder(folder))

    assert f"the data folder {folder} cannot be created: " in str(error)
    assert "--data-dir" in str(error)
    assert type(error) is Unavailable


def test_unwritable_data_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "up.lock").mkdir()

    error = failure(lambda: data_folder(tmp_path).__enter__())

    assert f"the data folder {tmp_path} cannot be written" in str(error)
    assert type(error) is Unavailable

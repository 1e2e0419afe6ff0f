"""The console gets a port that is free, and nothing else depends on it."""

import socket

import pytest

from todoku.cli.console_process import with_free_port
from todoku.console.host import addresses
from todoku.settings import CONSOLE, SettingsInvalid
from todoku.system import load_settings, system


def test_default_port_that_is_free_is_taken_without_a_word() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    settings, said = with_free_port(system.settings(console_port=free))
    assert (settings.port(CONSOLE), said) == (free, None)


def test_port_in_use_is_left_for_the_next_free_one_and_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        settings, said = with_free_port(system.settings(console_port=number))
    assert settings.console_port > number
    assert said is not None
    assert f"port {number} is in use by" in said
    assert f"gets port {settings.console_port}" in said


def test_ports_of_the_services_and_of_the_broker_are_not_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    wanted = system.settings(console_port=number, orders_port=number, nats_port=number + 1)
    settings, said = with_free_port(wanted)
    assert settings.console_port not in {number, number + 1}
    assert said is not None
    assert "in use by this system" in said


def test_port_base_moves_the_console_behind_the_broker() -> None:
    settings = load_settings({"port_base": 9_000}, environment={}).settings
    assert settings.console_port == settings.nats_port + 1
    assert settings.http_url(CONSOLE) == f"http://127.0.0.1:{settings.console_port}"


def test_services_elsewhere_are_reached_at_their_address() -> None:
    settings = system.settings(console_services="shipping = http://shipping:8082/, orders=http://o")
    assert addresses(settings) == {
        "orders": "http://o",
        "inventory": "http://127.0.0.1:8081",
        "shipping": "http://shipping:8082",
    }


def test_address_of_an_unknown_service_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="console_services names billing"):
        addresses(system.settings(console_services="billing=http://b"))


@pytest.mark.parametrize(
    "written", ["orders", "orders=ftp://x", "orders=http://u:p@x", "=http://x"]
)
def test_what_is_no_address_is_refused(written: str) -> None:
    with pytest.raises(SettingsInvalid, match="console_services"):
        load_settings({"console_services": written}, environment={})

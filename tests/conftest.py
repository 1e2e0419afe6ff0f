"""Fixtures and settings of all tests."""

import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends more on what else runs on the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Return a function that chooses free ports of 127.0.0.1, all different."""

    def choose(count: int) -> list[int]:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        ports = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        return ports

    return choose

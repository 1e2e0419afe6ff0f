"""Fixtures and settings of all tests."""

import gc
import socket
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes depends more on what else runs on the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

LONG = (
    *(
        "simulation",
        "prove",
        "docs",
        "packaging",
        "examples",
        "end_to_end",
        "faults",
        "bench",
        "cli",
    ),
    "web/test_openapi_contract",
)
"""The folders with the longest files, and such files. They run first, so that no worker is left alone with
one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of the longest files first."""
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(LONG))


def pytest_collection_finish() -> None:
    """Keep the collected tests and the modules out of every search for garbage: they stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


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

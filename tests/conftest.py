"""Fixtures and settings of all tests."""

import gc
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from todoku.lab import stack

# How long an example takes depends more on what else runs on the machine.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

LONGEST_FIRST = (
    "web/test_openapi_contract",
    "simulation/test_invariants",
    "examples/",
    "end_to_end/",
    "faults/",
    "simulation/test_command",
    "prove/",
    "bench/",
    "cli/test_order",
    "docs/",
    "distribution/test_wheel",
    "system/test_recovery",
    "simulation/test_mutants",
    "simulation/",
    "conformance/",
    "cli/",
)
"""The files that take long, and folders of such, longest first, so that no worker is left alone with one at
the end."""

APART = ("simulation/test_mutants",)
"""Files whose tests need nothing of each other: any worker takes the next of them."""


def _name(nodeid: str) -> str:
    return nodeid.removeprefix("tests/")


class ByFile(LoadFileScheduling):
    """Gives a worker the next file, whose tests may share what is expensive to prepare."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if _name(nodeid).startswith(APART) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Return what distributes the tests over the workers, whatever `--dist` says."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that take long first."""

    def rank(item: pytest.Item) -> int:
        name = _name(item.nodeid)
        found = (n for n, start in enumerate(LONGEST_FIRST) if name.startswith(start))
        return next(found, len(LONGEST_FIRST))

    items.sort(key=rank)


def pytest_collection_finish() -> None:
    """Keep the collected tests and the modules out of every search for garbage: they stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="session", autouse=True)
def not_logged_in(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let no test find what `todoku login` has kept for whoever runs the tests."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def free_ports() -> Callable[[int], list[int]]:
    """Return a function that chooses free ports of 127.0.0.1, all different."""
    return stack.free_ports

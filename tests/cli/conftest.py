"""One running system for all tests of commands that call the services."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from calling import Caller

from end_to_end.running import PORT_COUNT, Up, up
from todoku.system import system


@pytest.fixture(scope="session")
def running_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of the running system."""
    return tmp_path_factory.mktemp("running")


@pytest.fixture(scope="session")
def running(running_folder: Path, free_ports: Callable[[int], list[int]]) -> Iterator[Up]:
    """A running `todoku up` with a fast carrier that accepts every second parcel."""
    flags = ("--carrier-delay-seconds", "0", "--carrier-success-rate", "0.5")
    with up(running_folder, free_ports(PORT_COUNT), *flags) as running:
        running.output.until("todoku is ready in ")
        yield running


@pytest.fixture
def running_data(running: Up, running_folder: Path) -> Path:
    """The data folder of the running system."""
    return running_folder / "data"


@pytest.fixture(scope="session")
def settings_of_running(running: Up, running_folder: Path) -> dict[str, str]:
    """Variables with the addresses of the running system, which has a product `plenty`."""
    names = [*(f"TODOKU_{service.upper()}_PORT" for service in system.names), "TODOKU_NATS_PORT"]
    variables = dict(zip(names, map(str, running.ports), strict=True))
    words = ("product", "set", "plenty", "--name", "豊富", "--price", "5", "--stock", "1000000")
    Caller(running_folder, variables).ok(*words)
    return variables


@pytest.fixture
def todoku(settings_of_running: dict[str, str], tmp_path: Path) -> Caller:
    """Calls commands with the addresses of the running system."""
    return Caller(tmp_path, settings_of_running)


@pytest.fixture
def todoku_alone(tmp_path: Path) -> Caller:
    """Calls commands where no system runs."""
    return Caller(tmp_path)

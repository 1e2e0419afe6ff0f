"""One list of services, from which everything else follows."""

import importlib
import subprocess
import sys

import pytest

from todoku.database import head_revision
from todoku.descriptor import ServiceDescriptor, resolve
from todoku.settings import Settings
from todoku.system import system

LIGHT = """
import sys
import todoku.system
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
"""
HEAVY = ("sqlalchemy", "starlette", "uvicorn", "nats", "structlog", "alembic")


@pytest.mark.parametrize("service", system.services, ids=lambda service: service.name)
def test_every_part_that_a_descriptor_names_is_there(service: ServiceDescriptor) -> None:
    importlib.import_module(service.package)
    parts = [service.service, service.api, service.effects, service.on_start]
    assert all(callable(resolve(part)) for part in parts if part is not None)
    assert service.build(Settings()).name == service.name
    assert head_revision(service.package)


def test_the_list_of_services_imports_nothing_heavy() -> None:
    """`todoku --help` and completion read it."""
    loaded = subprocess.run(
        [sys.executable, "-c", LIGHT, *HEAVY], capture_output=True, text=True, check=True
    ).stdout
    assert loaded.split() == []

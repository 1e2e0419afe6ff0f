"""One list of services, from which everything else follows."""

import ast
import importlib
import importlib.resources
import subprocess
import sys
from pathlib import Path

import pytest

import todoku
from todoku.database import head_revision
from todoku.descriptor import ServiceDescriptor, resolve
from todoku.narration import Narration
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
    parts = [service.service, service.api, service.effects, service.on_start, service.simulation]
    parts.append(service.checks)
    assert all(callable(resolve(part)) for part in parts if part is not None)
    assert isinstance(resolve(service.narration), Narration)
    assert service.build(Settings()).name == service.name
    assert head_revision(service.package)


def test_the_list_of_services_imports_nothing_heavy() -> None:
    """`todoku --help` and completion read it."""
    loaded = subprocess.run(
        [sys.executable, "-c", LIGHT, *HEAVY], capture_output=True, text=True, check=True
    ).stdout
    assert loaded.split() == []


SOURCE = Path(todoku.__file__).parent
OF_SERVICES = (
    *(SOURCE / name for name in system.names),
    SOURCE / "contracts",
    SOURCE / "system.py",
)
ABOUT_BUILT_IN_SERVICES = {
    "cli/agents/reading.py": "the tools of `todoku mcp`",
    "cli/agents/writing.py": "the tools of `todoku mcp`",
    "cli/catalogue_copy.py": "whether orders has the products of inventory",
    "cli/causes.py": "why an order waits",
    "cli/events.py": "`todoku events`",
    "cli/evidence.py": "why an order waits",
    "cli/explanation.py": "why an order waits",
    "cli/reasons.py": "why an order waits",
    "cli/follow.py": "`todoku order watch`",
    "cli/order.py": "`todoku order`",
    "cli/order_holds.py": "`todoku order hold`",
    "cli/product.py": "`todoku product`",
    "cli/product_stock.py": "`todoku product`",
    "cli/reads.py": "bench reads orders that there are",
    "cli/saga.py": "the statuses of an order",
    "cli/shipment.py": "`todoku shipment`",
    "cli/simulate.py": "counts orders",
    "cli/up.py": "how to place an order",
    "cli/verify.py": "counts orders",
    "lab/bench/copies.py": "the load: copies of orders",
    "lab/bench/fill.py": "the load: orders",
    "lab/bench/reads.py": "the load: reads of orders, products and shipments",
    "lab/bench/run.py": "the load: orders",
    "lab/chaos/copier.py": "copies the feed of orders",
    "lab/chaos/faults.py": "pauses the carrier",
    "lab/chaos/load.py": "the load: orders",
    "lab/chaos/staff.py": "restocks products",
    "lab/databases.py": "waits until every order has ended",
    "lab/system_client.py": "places and follows orders",
    "cli/person.py": "the orders of a person come from orders",
    "engine/persons/handler.py": "the problem counts open orders",
    "web/persons.py": "the problem has a member with open orders",
}
"""The modules outside of the services that name one, and why."""


def _names_a_service(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return text in system.names
        case ast.ImportFrom(module=str(module)):
            return module.split(".")[:2] in [["todoku", name] for name in system.names]
        case _:
            return False


def test_no_other_module_names_a_service() -> None:
    """Everything else iterates the list, so that a service of somebody else is part of it."""
    found = {
        str(file.relative_to(SOURCE)): node.lineno
        for file in SOURCE.rglob("*.py")
        if not any(file.is_relative_to(place) for place in OF_SERVICES)
        for node in ast.walk(ast.parse(file.read_text()))
        if _names_a_service(node)
    }
    assert found.keys() == ABOUT_BUILT_IN_SERVICES.keys(), found


@pytest.mark.parametrize("service", system.services, ids=lambda service: service.name)
def test_services_do_not_import_each_other(service: ServiceDescriptor) -> None:
    others = {other.package for other in system if other is not service}
    folder = Path(str(importlib.resources.files(service.package)))
    imported = {
        module
        for file in folder.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        for module in _modules(node)
    }
    assert not {module for module in imported if module.startswith(tuple(others))}


def _modules(node: ast.AST) -> list[str]:
    match node:
        case ast.ImportFrom(module=str(module)):
            return [module]
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case _:
            return []

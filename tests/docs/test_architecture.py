"""The path of one order on the architecture page: its functions exist, and an order passes them."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from types import CodeType, FrameType
from typing import Any

import anyio
import httpx
import pytest
from sqlalchemy import text

from end_to_end.running import BOUND_SECONDS
from todoku.database import Database
from todoku.settings import Span
from todoku.system import system
from web.edge import client, running_together

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
NETWORK = ("broker.nats", "web.connections")
"""Modules that an order passes only over a real network, which the tests of `conformance` do."""

IN_NO_FIXED_ORDER = (
    # Coroutines that wait for the order before it arrives, so that it does not call them.
    "engine.process.Process.write_step",
    "engine.mailbox.Mailbox.wait_for_work",
    "engine.relay.Relay.step",
    # A receipt is on its way while shipping works; two services handle the same event.
    "engine.process.Process._on_receipt",
    "orders.domain.complete",
    "inventory.domain.deduct_stock",
)


def functions_on_the_page() -> list[str]:
    """Return the names in the section about one order, in their order, relative to `todoku`."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition("## The path of one order\n")
    _, _, section = section.partition("\n## ")[0].partition("\n### ")
    names = re.findall(r"`([a-z]\w*(?:\.\w+)+)`", section)
    return [name for name in dict.fromkeys(names) if not name.startswith("todoku.")]


def code_of(name: str) -> CodeType:
    """Return the code of a function, behind its decorators."""
    function = resolve_name(f"todoku.{name}")
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code: CodeType = function.__code__
    return code


def test_path_of_one_order_names_functions() -> None:
    assert len(functions_on_the_page()) > 30


@pytest.mark.parametrize("name", functions_on_the_page())
def test_function_on_the_path_exists(name: str) -> None:
    assert code_of(name)


@contextmanager
def recorded_calls() -> Iterator[dict[CodeType, int]]:
    """Record when code first runs in this thread, resumed coroutines included."""
    ran: dict[CodeType, int] = {}

    def record(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            ran.setdefault(frame.f_code, len(ran))

    sys.setprofile(record)
    try:
        yield ran
    finally:
        sys.setprofile(None)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_one_order_passes_every_function_on_its_path() -> None:
    settings = system.settings(carrier_success_rate=1.0, carrier_delay_seconds=Span(0, 0))
    services = [(each.build(settings), each.build_api) for each in system]
    databases: list[Database] = []
    async with (
        running_together(services, databases=databases) as (orders, inventory, _),
        client(orders) as shop,
        client(inventory) as warehouse,
    ):
        await add_product(warehouse)
        await wait_until_delivered(databases)
        with recorded_calls() as ran:
            await place_order_and_wait(shop)
            await wait_until_deducted(warehouse)
    passed = [name for name in functions_on_the_page() if not name.startswith(NETWORK)]
    assert [name for name in passed if code_of(name) not in ran] == []
    called = [name for name in passed if name not in IN_NO_FIXED_ORDER]
    assert called == sorted(called, key=lambda name: ran[code_of(name)])


async def add_product(warehouse: httpx.AsyncClient) -> None:
    product = {"name": "Keyboard", "price": 5000, "stockQuantity": 10}
    created = await warehouse.put("/products/prod001", json=product)
    assert created.status_code == 201, created.text


async def wait_until_delivered(databases: list[Database]) -> None:
    """Wait until nothing that was published waits for a receipt."""
    with anyio.fail_after(BOUND_SECONDS):
        while True:
            if not any(map(pending_deliveries, databases)):
                return
            await anyio.sleep(0.01)


def pending_deliveries(database: Database) -> int:
    with database.read() as connection:
        return connection.scalar(text("SELECT count(*) FROM outbox")) or 0


async def place_order_and_wait(shop: httpx.AsyncClient) -> None:
    item = {"productId": "prod001", "quantity": 2, "price": 5000}
    placed = await shop.post("/orders", json={"userId": "user123", "items": [item]})
    assert placed.status_code == 201, placed.text
    await until(shop, placed.headers["location"], {"status": "COMPLETED"})


async def wait_until_deducted(warehouse: httpx.AsyncClient) -> None:
    await until(warehouse, "/products/prod001", {"stockQuantity": 8, "reservedQuantity": 0})


async def until(http: httpx.AsyncClient, path: str, expected: dict[str, Any]) -> None:
    """Ask until the answer has these values."""
    with anyio.fail_after(BOUND_SECONDS):
        while True:
            answer = (await http.get(path)).json()
            if expected.items() <= answer.items():
                return
            await anyio.sleep(0.01)

"""A copy of all orders that is kept by the feed: complete, however often the copier is killed."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from web.edge import listening, running_together

pytestmark = pytest.mark.anyio

COPIER: Final = Path(__file__).parents[2] / "examples" / "copy_orders.py"
KILLS: Final = 10
SECONDS_MAX: Final = 60
ORDER: Final = {"userId": "u", "items": [{"productId": "ghost", "quantity": 2, "price": 3}]}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def url() -> AsyncIterator[str]:
    services = [
        (orders_service(Settings()), orders_api),
        (inventory_service(Settings()), inventory_api),
    ]
    async with running_together(services) as apps, listening(apps[0]) as (host, port):
        yield f"http://{host}:{port}"


class Copy:
    """The copy, and the program that keeps it."""

    def __init__(self, url: str, path: Path) -> None:
        self._url = url
        self._path = path

    async def run(self, *flags: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, COPIER, self._url, self._path, *flags
        )

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            with closing(sqlite3.connect(self._path)) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError:
            return []  # Its tables are not there yet, or it is writing.

    @property
    def position(self) -> int:
        return next((position for (position,) in self.rows("SELECT position FROM place")), 0)


async def test_copier_without_arguments_prints_how_it_is_used() -> None:
    copier = await asyncio.create_subprocess_exec(
        sys.executable, COPIER, stderr=asyncio.subprocess.PIPE
    )
    _, printed = await copier.communicate()
    assert copier.returncode == 2
    assert printed.startswith(b"usage: copy_orders.py [-h] [--once] url path")


async def test_copier_that_is_killed_again_and_again_has_exactly_the_orders_that_exist(
    url: str, tmp_path: Path
) -> None:
    copy = Copy(url, tmp_path / "copy.db")
    async with httpx.AsyncClient(base_url=url, timeout=SECONDS_MAX) as http:
        placing = asyncio.create_task(_place_orders(http))
        for _ in range(KILLS):
            before = copy.position
            copier = await copy.run()
            async with asyncio.timeout(SECONDS_MAX):
                while copy.position == before:  # noqa: ASYNC110 - it is another program
                    await asyncio.sleep(0.01)
            copier.kill()
            await copier.wait()
        placing.cancel()
        await asyncio.wait([placing])
        async with asyncio.timeout(SECONDS_MAX):
            while (await http.get("/orders", params={"status": "PENDING"})).json()["items"]:
                pass
        assert await (await copy.run("--once")).wait() == 0
        expected = await _every_order(http)
    columns = "id, user_id, total_amount, currency, status"
    copied = {row[0]: row[1:] for row in copy.rows(f"SELECT {columns} FROM orders")}
    assert copied == expected
    assert len(expected) > KILLS


async def _place_orders(http: httpx.AsyncClient) -> None:
    while True:
        await http.post("/orders", json=ORDER)


async def _every_order(http: httpx.AsyncClient) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    query: dict[str, Any] = {"limit": 200}
    while True:
        page = (await http.get("/orders", params=query)).json()
        for order in page["items"]:
            found[order["id"]] = tuple(
                order[name] for name in ("userId", "totalAmount", "currency", "status")
            )
        if page["nextCursor"] is None:
            return found
        query["cursor"] = page["nextCursor"]

"""Pages load nothing from other servers and be in no frame; other sites call only if a setting lets them."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from todoku.host import server_config
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.system import system
from todoku.web.hosts import known_hosts
from web.edge import client, running

pytestmark = pytest.mark.anyio

SHOP = "https://shop.example"
ORDER = {"userId": "u", "items": [{"productId": "p", "quantity": 1, "price": 1}]}


async def serving(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    hosts = known_hosts("127.0.0.1", "testserver")
    async with (
        running(orders_service(Settings()), orders_api, hosts=hosts, **options) as app,
        client(app) as http,
    ):
        yield http


@pytest.fixture
async def closed() -> AsyncIterator[httpx.AsyncClient]:
    async for http in serving():
        yield http


@pytest.fixture
async def opened() -> AsyncIterator[httpx.AsyncClient]:
    async for http in serving(cors_origins=(SHOP,)):
        yield http


@pytest.mark.parametrize("page", ["/", "/docs", "/problems", "/problems/unknown-order"])
async def test_page_is_in_no_frame_and_loads_nothing_from_elsewhere(
    closed: httpx.AsyncClient, page: str
) -> None:
    headers = (await closed.get(page, headers={"Accept": "text/html"})).headers
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_no_response_is_sniffed() -> None:
    config = server_config("orders", system.settings(), Starlette())
    config.load()
    assert (b"x-content-type-options", b"nosniff") in config.encoded_headers


async def test_other_sites_may_not_read_by_default(closed: httpx.AsyncClient) -> None:
    answer = await closed.get("/orders", headers={"Origin": SHOP})
    assert "access-control-allow-origin" not in answer.headers


async def test_named_site_may_read_and_write(opened: httpx.AsyncClient) -> None:
    headers = {"Origin": SHOP, "Sec-Fetch-Site": "cross-site"}
    preflight = await opened.options(
        "/orders",
        headers={
            **headers,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == SHOP
    assert "access-control-allow-credentials" not in preflight.headers
    placed = await opened.post("/orders", json=ORDER, headers=headers)
    assert placed.status_code == 201
    assert placed.headers["access-control-allow-origin"] == SHOP
    assert "Location" in placed.headers["access-control-expose-headers"]


async def test_named_site_may_read_problems(opened: httpx.AsyncClient) -> None:
    missing = await opened.get("/orders/none", headers={"Origin": SHOP})
    assert missing.status_code == 404
    assert missing.headers["access-control-allow-origin"] == SHOP


@pytest.mark.parametrize("origin", ["https://other.example", "http://shop.example", "null"])
async def test_site_that_is_not_named_stays_outside(opened: httpx.AsyncClient, origin: str) -> None:
    answer = await opened.post("/orders", json=ORDER, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("written", "origins"),
    [
        ("", ()),
        ("https://a.example", ("https://a.example",)),
        (
            "https://a.example, http://localhost:3000,",
            ("https://a.example", "http://localhost:3000"),
        ),
    ],
)
def test_origins_are_joined_by_commas(written: str, origins: tuple[str, ...]) -> None:
    assert system.settings(cors_origins=written).allowed_origins == origins


def test_every_site_at_once_cannot_be_allowed() -> None:
    from todoku.settings import SettingsInvalid, Sources, load

    sources = Sources(flags={"cors_origins": "*"}, environment={}, file=None, in_file={})
    with pytest.raises(SettingsInvalid, match="cors_origins cannot be"):
        load(sources, list(system))

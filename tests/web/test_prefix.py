"""Behind a proxy that publishes a service under a path prefix, links keep the prefix; idle connections stay
open for as long as is set."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.host import server_config
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.system import system
from web.edge import client, running

pytestmark = pytest.mark.anyio

PREFIX = "/shop/orders"
ORDER = {"userId": "u", "items": [{"productId": "p", "quantity": 1, "price": 1}]}


class StrippingProxy:
    """A proxy that strips the prefix and names it to the service."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["path"].startswith(PREFIX)
        headers = [*scope["headers"], (b"x-forwarded-prefix", PREFIX.encode())]
        path = scope["path"].removeprefix(PREFIX)
        await self._app({**scope, "path": path, "headers": headers}, receive, send)


@pytest.fixture
async def service() -> AsyncIterator[ASGIApp]:
    async with running(orders_service(Settings()), orders_api, trust_forwarded_prefix=True) as app:
        yield app


async def test_location_and_link_lead_through_the_proxy(service: ASGIApp) -> None:
    async with client(StrippingProxy(service)) as http:
        placed = [await http.post(f"{PREFIX}/orders", json=ORDER) for _ in range(3)]
        location = placed[0].headers["location"]
        assert location == f"{PREFIX}/orders/{placed[0].json()['id']}"
        assert (await http.get(location)).json()["id"] == placed[0].json()["id"]
        seen, url = [], f"{PREFIX}/orders?limit=1"
        while url:
            page = await http.get(url)
            seen += [order["id"] for order in page.json()["items"]]
            url = page.links["next"]["url"] if "next" in page.links else ""
        assert len(seen) == 3


@pytest.mark.parametrize("page", ["/", "/docs", "/docs/", "/problems", "/problems/unknown-order"])
async def test_links_of_pages_lead_through_the_proxy(service: ASGIApp, page: str) -> None:
    async with client(StrippingProxy(service)) as http:
        text = (await http.get(PREFIX + page, headers={"Accept": "text/html"})).text
        links = re.findall(r'(?:src|href|spec-url)="(/[^"]*)"', text)
        assert links
        for link in links:
            assert (await http.get(link)).status_code == 200


async def test_document_names_the_prefix_as_its_server(service: ASGIApp) -> None:
    async with client(StrippingProxy(service)) as http:
        assert (await http.get(f"{PREFIX}/openapi.json")).json()["servers"] == [{"url": PREFIX}]
    async with client(service) as http:
        assert (await http.get("/openapi.json")).json()["servers"] == [{"url": "/"}]


@pytest.mark.parametrize(
    "prefix",
    [
        *("shop", "//evil.example", "/a/../b", "/a b", "/", "", "/a,/b", "http://evil"),
        *("/" + "x" * 65, '/a"><script>', "/a%2Fb"),
    ],
)
async def test_prefix_that_is_no_path_is_ignored(service: ASGIApp, prefix: str) -> None:
    async with client(service) as http:
        headers = {"X-Forwarded-Prefix": prefix}
        reply = await http.post("/orders", json=ORDER, headers=headers)
        assert reply.headers["location"] == f"/orders/{reply.json()['id']}"


async def test_prefix_is_not_trusted_unless_the_setting_says_so() -> None:
    async with running(orders_service(Settings()), orders_api) as app, client(app) as http:
        reply = await http.post("/orders", json=ORDER, headers={"X-Forwarded-Prefix": PREFIX})
        assert reply.headers["location"].startswith("/orders/")
        assert PREFIX not in (await http.get("/docs", headers={"X-Forwarded-Prefix": PREFIX})).text


async def test_service_can_be_mounted_in_another_application(service: ASGIApp) -> None:
    mounted = Starlette(routes=[Mount("/inner", service)])
    transport = httpx.ASGITransport(mounted)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        assert (await http.get("/inner/livez")).status_code == 200


@pytest.mark.parametrize("seconds", [75.0, 0.3])
def test_idle_connection_stays_open_for_as_long_as_is_set(seconds: float) -> None:
    """A balancer in front that keeps it for longer would send a request into a closed one."""
    settings = system.settings(keep_alive_seconds=seconds)
    assert server_config("orders", settings, Starlette()).timeout_keep_alive == seconds

"""Services answer under their own names, and change nothing for pages of other sites."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import ASGIApp

from todoku.identity import Caller
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web.hosts import KnownHosts, known_hosts
from web.edge import client, running

pytestmark = pytest.mark.anyio

ORDER = {"userId": "u", "items": [{"productId": "p", "quantity": 1, "price": 1}]}


@pytest.fixture
async def service() -> AsyncIterator[ASGIApp]:
    known = known_hosts("127.0.0.1", "shop.example, orders")
    async with running(orders_service(Settings()), orders_api, hosts=known) as app:
        yield app


@pytest.fixture
async def http(service: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    async with client(service) as http:
        yield http


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "orders.localhost:80",
        "127.0.0.1:8080",
        "127.1.2.3",
        "[::1]:8080",
        "shop.example",
        "SHOP.example:443",
        "orders:8080",
    ],
)
async def test_own_names_are_answered(http: httpx.AsyncClient, host: str) -> None:
    answer = await http.post("/orders", json=ORDER, headers={"Host": host})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:8080",
        "localhost.attacker.example",
        "notlocalhost",
        "127.0.0.1.attacker.example",
        "0.0.0.0:8080",
        "192.168.0.1",
        "[::2]",
        "shop.example.attacker.example",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/orders", "/docs", "/", "/openapi.json", "/nothing/here"])
async def test_foreign_names_are_refused_by_name(
    http: httpx.AsyncClient, host: str, path: str
) -> None:
    answer = await http.get(path, headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["type"] == "/problems/unknown-host"
    assert repr(host) in answer.json()["detail"]
    assert "public_hosts" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/livez/"])
async def test_probes_are_answered_under_any_name(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(path, headers={"Host": "10.0.0.7:8080"})).status_code == 200


async def test_metrics_are_answered_under_any_name_with_a_credential(
    http: httpx.AsyncClient,
) -> None:
    """Without accounts, a page whose name was rebound to this machine would read them."""
    elsewhere = {"Host": "10.0.0.7:8080"}
    assert (await http.get("/metrics", headers=elsewhere)).status_code == 421
    assert (await http.get("/metrics", headers={"Host": "localhost"})).status_code == 200

    async def authenticate(credential: str) -> Caller:
        return Caller("prometheus", frozenset({"metrics:read"}))

    known = known_hosts("127.0.0.1", "")
    async with (
        running(
            orders_service(Settings()), orders_api, hosts=known, authenticate=authenticate
        ) as app,
        client(app) as closed,
    ):
        assert (await closed.get("/metrics", headers=elsewhere)).status_code == 401
        elsewhere["Authorization"] = "Bearer x"
        assert (await closed.get("/metrics", headers=elsewhere)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://attacker.example"},
        {"Origin": "https://localhost.attacker.example:8080"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://attacker.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
async def test_page_of_another_site_changes_nothing(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    headers["Host"] = "localhost:8080"
    refused = await http.post("/orders", json=ORDER, headers=headers)
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/foreign-page"
    orders = (await http.get("/orders", headers=headers)).json()
    assert orders["items"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://localhost:8080", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "https://shop.example"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ],
)
async def test_own_pages_may_change_something(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    headers["Host"] = "localhost:8080"
    assert (await http.post("/orders", json=ORDER, headers=headers)).status_code == 201


async def test_preflight_of_another_site_is_not_allowed(http: httpx.AsyncClient) -> None:
    headers = {"Host": "localhost", "Origin": "https://attacker.example"}
    answer = await http.options("/orders", headers=headers)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("listens_on", ["127.0.0.1", "localhost", "::1"])
def test_loopback_knows_its_names(listens_on: str) -> None:
    known = known_hosts(listens_on, "")
    assert known is not None
    assert known.includes(b"localhost:8080")
    assert not known.includes(b"shop.example")


@pytest.mark.parametrize("listens_on", ["0.0.0.0", "::", "192.168.0.5", "machine.example"])
def test_other_addresses_are_reached_under_any_name_until_names_are_set(listens_on: str) -> None:
    assert known_hosts(listens_on, " , ") is None
    known = known_hosts(listens_on, "shop.example")
    assert known is not None
    assert known.includes(b"shop.example:8080")
    assert not known.includes(b"attacker.example")


def test_remembered_names_are_bounded() -> None:
    known = KnownHosts()
    for number in range(5_000):
        assert not known.includes(b"h%d.example" % number)
    assert known.includes.cache_info().currsize <= 1_000

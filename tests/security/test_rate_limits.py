"""Each caller has quotas of requests, costly requests and wrong credentials."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.authentication import SimpleUser
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.system import system
from todoku.web.buckets import Policy
from todoku.web.problems import Problem, ProblemType
from todoku.web.rate_limits import RateLimiter, rate_limiter
from web.edge import client, running

pytestmark = pytest.mark.anyio

UNAUTHENTICATED = ProblemType("unauthenticated", 401, "Unauthenticated", "Meaning.", "Advice.")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Keys:
    """Authenticate callers by keys that are their names; `wrong` is refused."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = dict(scope["headers"]).get(b"authorization")
        if key == b"wrong":
            raise Problem(UNAUTHENTICATED, "Send a valid key.")
        if key:
            scope["user"] = SimpleUser(key.decode())
        await self._app(scope, receive, send)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def http(clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    limiter = RateLimiter(
        Policy("requests", 5, 10.0),
        Policy("costly", 2, 60.0),
        Policy("failures", 3, 60.0),
        clock=clock,
    )
    async with serving(limiter, behind_proxy=True) as http:
        yield http


@asynccontextmanager
async def serving(
    limiter: RateLimiter | None, **options: object
) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        running(
            orders_service(Settings()),
            orders_api,
            limiter=limiter,
            middleware=[Middleware(Keys)],
            **options,
        ) as app,
        client(app) as http,
    ):
        yield http


async def test_request_above_the_quota_is_refused_with_the_time_to_wait(
    http: httpx.AsyncClient, clock: Clock
) -> None:
    answers = [await http.get("/orders") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=5;w=10'
    assert answers[0].headers["ratelimit"] == '"requests";r=4;t=2'
    refused = answers[5]
    assert refused.headers["retry-after"] == "2"
    assert refused.headers["ratelimit"] == '"requests";r=0;t=2'
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["type"] == "/problems/rate-limited"
    assert refused.json()["violated-policies"] == ["requests"]
    clock.now = 2.0
    assert (await http.get("/orders")).status_code == 200


async def test_credentials_have_quotas_of_their_own_wherever_they_come_from(
    http: httpx.AsyncClient,
) -> None:
    for _ in range(6):
        exhausted = await http.get("/orders", headers={"Authorization": "a"})
    assert exhausted.status_code == 429
    other_place = {"Authorization": "a", "X-Forwarded-For": "192.0.2.9"}
    assert (await http.get("/orders", headers=other_place)).status_code == 429
    assert (await http.get("/orders", headers={"Authorization": "b"})).status_code == 200
    assert (await http.get("/orders")).status_code == 200


async def test_costly_requests_have_a_tighter_quota(http: httpx.AsyncClient) -> None:
    path = "/events/send-again"
    answers = [await http.post(path, json={}, headers={"Authorization": "a"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    policies = '"requests";q=5;w=10, "costly";q=2;w=60'
    assert answers[0].headers["ratelimit-policy"] == policies
    assert answers[0].headers["ratelimit"] == '"requests";r=4;t=2, "costly";r=1;t=30'
    assert answers[2].json()["violated-policies"] == ["costly"]
    assert answers[2].headers["retry-after"] == "30"
    assert (await http.post(path, json={}, headers={"Authorization": "b"})).status_code == 202


async def test_wrong_credentials_are_limited_by_address_and_lock_nobody_out(
    http: httpx.AsyncClient,
) -> None:
    headers = {"Authorization": "wrong", "X-Forwarded-For": "192.0.2.1"}
    answers = [await http.get("/orders", headers=headers) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert answers[4].json()["violated-policies"] == ["failures"]
    neighbour = {"Authorization": "a", "X-Forwarded-For": "192.0.2.1"}
    assert (await http.get("/orders", headers=neighbour)).status_code == 200


async def test_probes_are_never_limited(http: httpx.AsyncClient) -> None:
    for _ in range(20):
        assert (await http.get("/readyz")).status_code == 200


async def test_only_the_last_forwarded_address_counts(http: httpx.AsyncClient) -> None:
    """What comes before it, the client may have made up."""
    for number in range(6):
        forwarded = {"X-Forwarded-For": f"203.0.113.{number}, 192.0.2.1"}
        last = await http.get("/orders", headers=forwarded)
    assert last.status_code == 429


async def test_forwarded_addresses_count_behind_a_proxy_only(clock: Clock) -> None:
    limiter = RateLimiter(*[Policy(name, 1, 60.0) for name in ("r", "c", "f")], clock=clock)
    async with serving(limiter) as http:
        for status, address in [(200, "192.0.2.1"), (429, "192.0.2.2")]:
            headers = {"X-Forwarded-For": address, "Forwarded": f"for={address}"}
            assert (await http.get("/orders", headers=headers)).status_code == status


async def test_without_limits_nothing_is_said_about_them() -> None:
    async with serving(None) as http:
        assert "ratelimit" not in (await http.get("/orders")).headers
        assert (await http.post("/events/send-again", json={})).status_code == 202


@pytest.mark.parametrize(
    ("limits", "host", "accounts", "limited"),
    [
        ("auto", "127.0.0.1", False, False),
        ("auto", "127.0.0.1", True, True),
        ("auto", "0.0.0.0", False, True),
        ("on", "127.0.0.1", False, True),
        ("off", "0.0.0.0", True, False),
    ],
)
def test_limits_are_off_on_loopback_without_accounts(
    limits: str, host: str, accounts: bool, limited: bool
) -> None:
    settings: Callable[..., Settings] = system.settings
    limiter = rate_limiter(settings(rate_limits=limits, host=host), accounts=accounts)
    assert (limiter is not None) is limited

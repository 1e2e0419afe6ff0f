"""Logging in at the console, by key and at a real issuer, in front of a real service; and attacks on it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.types import ASGIApp

from security.issuer import Issuer, issuing
from security.test_api_keys import first_key
from todoku.console import sessions as session_limits
from todoku.console.application import application
from todoku.console.code_flow import Client, CodeFlow
from todoku.console.cookies import browser_of
from todoku.console.forwarding import make_client
from todoku.console.logins import Logins, safe_target
from todoku.console.sessions import Sessions
from todoku.database import Database
from todoku.identity.keys import ApiKey
from todoku.identity.tokens import Expected
from todoku.system import system
from todoku.tls import public_context
from todoku.web import Limits
from todoku.web.access_tokens import AccessTokens, ClaimNames
from todoku.web.hosts import KnownHosts
from todoku.web.issuer_keys import IssuerKeys, fetch_over_http
from todoku.web.keys import api_keys
from web.edge import listening, running_together

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 10.0
HOST = "127.0.0.1:8085"
COOKIE = "todoku-session-8085"
LOGIN_COOKIE = "todoku-login-8085"
PAUSE = {"target": "service", "reason": "a test"}


def now() -> datetime:
    return datetime.now(UTC)


class Clock:
    """The time of sessions, which a test moves."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        return self.passed


class World:
    """A console before the service of orders, and an issuer."""

    def __init__(self, issuer: Issuer, app: ASGIApp, database: Database) -> None:
        self.issuer = issuer
        self.app = app
        self.database = database
        self.clock = Clock()
        self.sessions: Sessions
        self.console: ASGIApp
        self.key = ""

    def browser(self, base: str = f"http://{HOST}") -> httpx.AsyncClient:
        """Return a browser of its own: it keeps cookies, and follows no redirect by itself."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.console), base_url=base)  # type: ignore[arg-type]


@asynccontextmanager
async def world(
    secret_file: Path | None = None, url: str | None = None, **limits: float
) -> AsyncIterator[World]:
    orders = system["orders"]
    databases: list[Database] = []
    async with issuing() as issuer:
        fetch = fetch_over_http(issuer.address, None, public_context(None))
        keys = IssuerKeys(fetch, issuer.address)
        tokens = AccessTokens(
            keys,
            Expected(issuer=issuer.address, audience="todoku", leeway_seconds=30.0),
            ClaimNames("scope", None),
            now,
        )
        running = running_together(
            [(orders.build(system.settings()), orders.build_api)],
            keyring=True,
            tokens=tokens,
            databases=databases,
        )
        async with (
            running as (app,),
            listening(app) as (host, port),
            make_client() as client,
        ):
            found = World(issuer, app, databases[0])
            with databases[0].transaction() as connection:
                found.key = first_key(connection)
            found.sessions = Sessions(
                **({"seconds_max": 1_000.0, "idle_seconds_max": 500.0} | limits), clock=found.clock
            )
            flow = CodeFlow(
                Client(
                    id="console",
                    secret_file=secret_file,
                    scope="orders:read",
                    issuer=issuer.address,
                    audience="todoku",
                    leeway_seconds=30.0,
                ),
                keys,
                public_context(None),
                now,
            )
            bounds = Limits(body_bytes_max=10_000)
            address = f"http://{host}:{port}"
            found.console = application(
                {"orders": address},
                client,
                limits=bounds,
                logins=Logins(
                    found.sessions,
                    client,
                    f"{address}/whoami",
                    limits=bounds,
                    flow=flow,
                    url=url,
                    behind_proxy=True,
                ),
                hosts=KnownHosts(["127.0.0.1", "shop.example"]),
                behind_proxy=True,
            )
            yield found


async def by_key(browser: httpx.AsyncClient, key: str) -> dict[str, str]:
    """Log in by key; return the header with the token of the session."""
    answer = await browser.post("/session", json={"key": key})
    assert answer.status_code == 200, answer.text
    return {"X-CSRF-Token": answer.json()["csrfToken"]}


async def at_issuer(browser: httpx.AsyncClient, target: str = "") -> httpx.Response:
    """Log in at the issuer; return the response of the console to the browser that comes back."""
    return await browser.get(await begin(browser, target))


async def begin(browser: httpx.AsyncClient, target: str = "") -> str:
    """Begin a login; return where the issuer sends the browser."""
    leaves = await browser.get("/session/login", params={"to": target})
    assert leaves.status_code == 303, leaves.text
    async with httpx.AsyncClient(trust_env=False) as other:
        return (await other.get(leaves.headers["location"])).headers["location"]


async def actor(browser: httpx.AsyncClient) -> str | None:
    shown: str | None = (await browser.get("/session")).json()["actor"]
    return shown


async def test_key_becomes_a_session_whose_cookie_no_script_reads() -> None:
    async with world() as its, its.browser() as browser:
        assert (await browser.get("/api/orders/orders")).status_code == 401
        answer = await browser.post("/session", json={"key": its.key})
        assert answer.json()["actor"] == "root"
        assert its.key not in answer.text + str(answer.headers)
        cookie = answer.headers["set-cookie"]
        assert re.fullmatch(rf"{COOKIE}=[\w-]{{43}}; Path=/; HttpOnly; SameSite=Strict", cookie)
        assert (await browser.get("/api/orders/orders")).status_code == 200
        assert (await browser.get("/api/orders/whoami")).json()["actor"] == "root"
        async with its.browser() as other:
            assert (await other.get("/api/orders/orders")).status_code == 401


async def test_cookie_over_tls_or_behind_a_proxy_is_bound_to_the_host() -> None:
    reached: dict[str, dict[str, str]] = {
        "https://shop.example": {},
        "http://shop.example": {},
        "http://127.0.0.1:8085": {"X-Forwarded-Proto": "https"},
    }
    async with world() as its:
        for base, headers in reached.items():
            async with its.browser(base) as browser:
                answer = await browser.post("/session", json={"key": its.key}, headers=headers)
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-todoku-session=")
            assert cookie.endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")


async def test_wrong_key_is_refused_as_the_service_says() -> None:
    async with world() as its, its.browser() as browser:
        for key in ("tdk_0_wrong", "x\r\nHost: y", "ключ", ""):
            answer = await browser.post("/session", json={"key": key})
            assert (answer.status_code, answer.json()["type"]) == (401, "/problems/unauthenticated")
            assert "set-cookie" not in answer.headers
        assert (await browser.post("/session", json={"key": "k" * 20_000})).status_code == 413
        assert (await browser.post("/session", content=b"key=1")).status_code == 415
        assert len(its.sessions) == 0


async def test_nothing_is_changed_without_the_token_of_the_session() -> None:
    async with world() as its, its.browser() as browser:
        token = await by_key(browser, its.key)
        async with its.browser() as other:
            foreign = await by_key(other, its.key)
        for headers in ({}, foreign, {"X-CSRF-Token": ""}, {"X-CSRF-Token": "ü".encode()}):
            answer = await browser.post("/api/orders/pauses", json=PAUSE, headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (
                403,
                "/problems/csrf-token-missing",
            )
            assert (await browser.delete("/session", headers=headers)).status_code == 403
        origin = {"Origin": "https://evil.example", **token}
        answer = await browser.post("/api/orders/pauses", json=PAUSE, headers=origin)
        assert answer.json()["type"] == "/problems/foreign-page"
        answer = await browser.post("/api/orders/pauses", json=PAUSE, headers=token)
        assert answer.status_code == 201, answer.text
        assert answer.json()["pausedBy"] == "root"


async def test_request_with_a_credential_of_its_own_needs_no_token() -> None:
    async with world() as its, its.browser() as browser:
        headers = {"Authorization": f"Bearer {its.key}"}
        answer = await browser.post("/api/orders/pauses", json=PAUSE, headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize("secret", [None, "s3cr&t ü"])
async def test_person_of_the_issuer_is_logged_in_with_what_the_token_permits(
    secret: str | None, tmp_path: Path
) -> None:
    file = None
    if secret is not None:
        file = tmp_path / "secret"
        file.write_text(secret + "\n", encoding="utf-8")
    async with world(file) as its, its.browser() as browser:
        if secret is not None:
            its.issuer.logins.clients["console"] = "s3cr%26t+%C3%BC"
        answer = await at_issuer(browser, "orders?status=OPEN")
        assert (answer.status_code, answer.headers["location"]) == (303, "/orders?status=OPEN")
        assert "SameSite=Strict" in answer.headers["set-cookie"]
        assert LOGIN_COOKIE not in browser.cookies
        (asked,) = its.issuer.logins.asked
        assert (asked["scope"], asked["code_challenge_method"]) == ("openid orders:read", "S256")
        assert await actor(browser) == "alice"
        assert (await browser.get("/api/orders/orders")).status_code == 200
        token = {"X-CSRF-Token": (await browser.get("/session")).json()["csrfToken"]}
        answer = await browser.post("/api/orders/pauses", json=PAUSE, headers=token)
        assert answer.json()["type"] == "/problems/missing-scope"
        seen = await browser.get("/session")
        assert not any(part in seen.text for part in ("eyJ", *its.issuer.logins.refresh_tokens))


async def test_response_of_the_issuer_counts_once_and_in_the_browser_that_began() -> None:
    async with world() as its, its.browser() as browser, its.browser() as victim:
        back = await begin(browser)
        login = browser.cookies[LOGIN_COOKIE]
        # Somebody else is led to the end of a login that the attacker began.
        refused = await victim.get(back)
        assert refused.headers["location"] == "/?login=state"
        assert await actor(victim) is None
        wrong = re.sub("state=[^&]*", "state=x", back)
        assert (await browser.get(wrong)).headers["location"] == "/?login=state"
        browser.cookies.set(LOGIN_COOKIE, login)
        assert (await browser.get(back)).headers["location"] == "/"
        assert await actor(browser) == "alice"
        victim.cookies.set(LOGIN_COOKIE, login)
        assert (await victim.get(back)).headers["location"] == "/?login=state"
        assert len(its.sessions) == 1


async def test_code_of_another_login_or_client_is_refused() -> None:
    async with world() as its, its.browser() as browser:
        for other in ("client", "verifier", "rubbish"):
            back = await begin(browser)
            asked = its.issuer.logins.asked[-1]
            given = {
                "client": {**asked, "client_id": "other"},
                "verifier": {**asked, "code_challenge": "c" * 43},
            }
            code = its.issuer.logins.code(given[other]) if other in given else "rubbish"
            stolen = re.sub("code=[^&]*", f"code={code}", back)
            assert (await browser.get(stolen)).headers["location"] == "/?login=token"
        assert await actor(browser) is None


async def test_id_token_for_somebody_else_is_refused() -> None:
    wrong: list[dict[str, Any]] = [
        {"nonce": "of another login"},
        {"nonce": None},
        {"aud": "other"},
        {"aud": ["console"], "azp": "other"},
        {"iss": "https://other.example"},
        {"exp": 1},
    ]
    async with world() as its, its.browser() as browser:
        for claims in wrong:
            its.issuer.logins.claims = claims
            assert (await at_issuer(browser)).headers["location"] == "/?login=token", claims
        assert await actor(browser) is None


async def test_failures_at_the_issuer_and_behind_it_are_said_on_the_page() -> None:
    async with world() as its, its.browser() as browser:
        its.issuer.logins.denies = True
        assert (await at_issuer(browser)).headers["location"] == "/?login=denied"
        its.issuer.logins.denies = False
        back = await begin(browser)
        other = back.replace("iss=http", "iss=https")
        assert (await browser.get(other)).headers["location"] == "/?login=state"
        its.issuer.status = 500
        answer = await browser.get("/session/login")
        assert answer.headers["location"] == "/?login=issuer"
        its.issuer.status = 200
        its.issuer.logins.clients["console"] = "changed"
        assert (await at_issuer(browser)).headers["location"] == "/?login=token"


ELSEWHERE = (
    "//evil.example",
    "https://evil.example/",
    "/\\evil.example",
    "\\\\evil.example",
    "/%0d%0aX:1\r\nSet-Cookie: a=b",
    "javascript:alert(1)",
    "/\t/evil.example",
    "session/login",
    "x" * 3_000,
)


async def test_login_leads_to_no_other_site() -> None:
    async with world() as its, its.browser() as browser:
        for target in ELSEWHERE:
            location = (await at_issuer(browser, target)).headers["location"]
            assert urlsplit(f"http://{HOST}{location}").netloc == HOST
            assert re.match(r"/(?![/\\])", location)
            assert location == safe_target(target)


async def test_id_of_a_session_is_new_at_each_login() -> None:
    async with world() as its, its.browser() as browser:
        browser.cookies.set(COOKIE, "chosen-by-the-attacker", domain="127.0.0.1")
        answer = await browser.post("/session", json={"key": its.key})
        first = answer.cookies[COOKIE]
        assert first != "chosen-by-the-attacker"
        browser.cookies.clear()
        browser.cookies.set(COOKIE, first)
        second = (await browser.post("/session", json={"key": its.key})).cookies[COOKIE]
        assert second != first
        browser.cookies.clear()
        browser.cookies.set(COOKIE, first)
        assert await actor(browser) is None
        assert len(its.sessions) == 1


async def test_log_out_ends_the_session_and_what_the_issuer_gave() -> None:
    async with world() as its, its.browser() as browser:
        await at_issuer(browser)
        cookie = browser.cookies[COOKIE]
        assert len(its.issuer.logins.refresh_tokens) == 1
        token = {"X-CSRF-Token": (await browser.get("/session")).json()["csrfToken"]}
        answer = await browser.delete("/session", headers=token)
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert not its.issuer.logins.refresh_tokens
        browser.cookies.set(COOKIE, cookie)
        assert await actor(browser) is None
        assert (await browser.get("/api/orders/orders")).status_code == 401


async def test_access_token_is_renewed_in_time_until_the_issuer_refuses() -> None:
    async with world() as its, its.browser() as browser:
        await at_issuer(browser)
        its.clock.passed = 400.0
        await browser.get("/api/orders/orders")
        assert its.issuer.logins.refreshed == 0
        its.clock.passed = 600.0
        answers = await asyncio.gather(*(browser.get("/api/orders/orders") for _ in range(3)))
        assert {each.status_code for each in answers} == {200}
        assert its.issuer.logins.refreshed == 1
        its.issuer.status = 500  # The old token is used on.
        its.clock.passed = 999.0
        assert (await browser.get("/api/orders/orders")).status_code == 200


async def test_session_ends_when_the_issuer_renews_nothing_or_for_somebody_else() -> None:
    async with world() as its, its.browser() as browser, its.browser() as other:
        await at_issuer(browser)
        await at_issuer(other)
        its.issuer.logins.person = "mallory"
        its.clock.passed = 490.0
        assert await actor(browser) == await actor(other) == "alice"
        its.clock.passed = 600.0
        assert (await browser.get("/api/orders/orders")).status_code == 401
        its.issuer.logins.refresh_tokens.clear()
        assert (await other.get("/api/orders/orders")).status_code == 401
        assert len(its.sessions) == 0


async def test_revoked_key_ends_the_session() -> None:
    async with world() as its, its.browser() as browser:
        await by_key(browser, its.key)
        with its.database.transaction() as connection:
            rows = list(api_keys.read(connection).values())
            api_keys.keep(connection, [revoked(each) for each in rows])
        async with asyncio.timeout(BOUND_SECONDS):
            while (await browser.get("/api/orders/orders")).status_code != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await actor(browser) is None
        assert len(its.sessions) == 0


def revoked(key: ApiKey) -> ApiKey:
    return ApiKey(
        id=key.id,
        digest=key.digest,
        owner=key.owner,
        scopes=key.scopes,
        created_at=key.created_at,
        revoked_at=now(),
    )


@pytest.mark.parametrize("ends_by", ["time", "idleness", "log out"])
async def test_open_stream_ends_with_its_session(ends_by: str) -> None:
    limits = {"time": {"seconds_max": 0.2}, "idleness": {"idle_seconds_max": 0.2}}.get(ends_by, {})
    async with world(**limits) as its, its.browser() as browser:
        its.sessions.clock = asyncio.get_running_loop().time
        token = await by_key(browser, its.key)
        cookie = browser.cookies[COOKIE]
        async with listening(its.console) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            head = f"Host: {HOST}\r\nCookie: {COOKIE}={cookie}\r\n\r\n"
            writer.write(f"GET /api/orders/orders/stream HTTP/1.1\r\n{head}".encode())
            async with asyncio.timeout(BOUND_SECONDS):
                assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
                if ends_by == "log out":
                    await browser.delete("/session", headers=token)
                await reader.readuntil(b"0\r\n\r\n")
            writer.close()
        assert (await browser.get("/api/orders/orders")).status_code == 401


async def test_sessions_end_after_their_time_and_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    sessions = Sessions(seconds_max=100.0, idle_seconds_max=60.0, clock=clock)
    used, session = sessions.begin("alice", "key")
    idle, _ = sessions.begin("alice", "key")
    short, _ = sessions.begin("alice", "token", valid_seconds=30.0)
    clock.passed = 50.0
    assert sessions.find(used) is session
    assert sessions.find(short) is None
    clock.passed = 70.0
    assert sessions.find(idle) is None
    assert sessions.find(used) is session
    clock.passed = 100.0
    assert sessions.find(used) is None
    assert session.ended.is_set()
    assert session.credential == ""
    monkeypatch.setattr(session_limits, "SESSIONS_MAX", 30)
    ids = [sessions.begin("alice", "key")[0] for _ in range(25)]
    assert len(sessions) == session_limits.OF_ONE_PERSON_MAX
    assert sessions.find(ids[0]) is None
    assert sessions.find(ids[-1]) is not None
    for number in range(50):
        sessions.begin(f"person{number}", "key")
    assert len(sessions) == 30


def scope_of(scheme: str = "http", prefix: str = "", **headers: str) -> dict[str, Any]:
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"scheme": scheme, "headers": given, "todoku.prefix": prefix}


@pytest.mark.parametrize(
    ("scope", "url", "origin", "cookie"),
    [
        (scope_of(host="localhost:99"), None, "http://localhost:99", "x-99"),
        (scope_of(host="[::1]:99"), None, "http://[::1]:99", "x-99"),
        (scope_of("https", host="127.0.0.1:99"), None, "https://127.0.0.1:99", "__Host-x"),
        (scope_of(host="shop.example"), None, "https://shop.example", "__Host-x"),
        (scope_of(host="127.0.0.1:99"), "https://a.example/c", "https://a.example", "__Host-x"),
    ],
)
def test_browser_is_known_by_the_address_that_it_calls(
    scope: dict[str, Any], url: str | None, origin: str, cookie: str
) -> None:
    browser = browser_of(scope, url, behind_proxy=False)
    assert (browser.origin, browser.cookie_name("x")) == (origin, cookie)


async def test_address_that_the_issuer_sends_back_to_is_the_one_that_is_set() -> None:
    async with world(url="https://shop.example/console") as its, its.browser() as browser:
        leaves = await browser.get("/session/login")
        (redirect,) = parse_qs(urlsplit(leaves.headers["location"]).query)["redirect_uri"]
        assert redirect == "https://shop.example/console/session/callback"
        assert leaves.headers["set-cookie"].startswith("__Host-todoku-login=")
        assert "SameSite=Lax" in leaves.headers["set-cookie"]

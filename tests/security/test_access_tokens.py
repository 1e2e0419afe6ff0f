"""OIDC access tokens: what is accepted of an issuer, and what of those who pretend to be it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import OctKey, RSAKey

from security.issuer import EC, RSA, SIGNERS, Issuer, forge, issuing, sign
from todoku.cli.checks import exposure
from todoku.diagnosis import CheckStatus
from todoku.identity import ROLES, Caller
from todoku.identity.claims import ClaimNames, caller_of
from todoku.identity.tokens import Expected, KeySetUnusable, TokenRefused, read_key_set, verify
from todoku.system import system
from todoku.tls import public_context
from todoku.web import access_tokens, issuer_keys
from todoku.web.access_tokens import AccessTokens
from todoku.web.issuer_keys import (
    FRESH_SECONDS,
    KEPT_SECONDS,
    PAUSE_SECONDS,
    IssuerKeys,
    IssuerUnavailable,
    fetch_over_http,
)
from todoku.web.problems import Problem
from web.edge import client, running_together

pytestmark = pytest.mark.anyio

LEEWAY_SECONDS = 30
NAMES = ClaimNames("scope", "realm_access.roles")
NOW = 1_900_000_000.0
OLD_KEY, NEW_KEY = RSA, RSAKey.generate_key(2048, {"kid": "new"})


class Clock:
    """The time of a test: of the wall, and steady."""

    def __init__(self) -> None:
        self.passed = 0.0

    def steady(self) -> float:
        return self.passed

    def wall(self) -> datetime:
        return datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=self.passed)


def tokens_of(issuer: Issuer, clock: Clock, jwks_url: str | None = None) -> AccessTokens:
    fetch = fetch_over_http(issuer.address, jwks_url, public_context(None))
    keys = IssuerKeys(fetch, issuer.address, clock=clock.steady)
    expected = Expected(
        issuer=issuer.address, audience="todoku", leeway_seconds=float(LEEWAY_SECONDS)
    )
    return AccessTokens(keys, expected, NAMES, clock.wall)


@asynccontextmanager
async def setting() -> AsyncIterator[tuple[Issuer, AccessTokens, Clock]]:
    clock = Clock()
    async with issuing() as issuer:
        yield issuer, tokens_of(issuer, clock), clock


async def refusal(tokens: AccessTokens, token: str, status: int = 401) -> str:
    """Return why a token is refused."""
    with pytest.raises(Problem) as refused:
        await tokens(token)
    assert refused.value.kind.status == status
    return refused.value.detail


@pytest.mark.parametrize("algorithm", SIGNERS)
async def test_token_of_the_issuer_says_who_calls_and_what_is_permitted(algorithm: str) -> None:
    async with setting() as (issuer, tokens, _):
        caller = await tokens(sign(issuer.claims(NOW), algorithm))
        assert caller.actor == "alice"
        assert caller.issuer == issuer.address
        assert caller.scopes == {"orders:create:own", "orders:read:own"}
        assert await tokens(sign(issuer.claims(NOW), algorithm)) == caller
        assert issuer.reads == 1


async def test_mute_issuer_is_said_not_to_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_keys, "ANSWER_SECONDS_MAX", 0.05)
    asked, left = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        left.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        fetch = fetch_over_http(f"http://127.0.0.1:{port}", None, public_context(None))
        with pytest.raises(IssuerUnavailable, match="does not answer in time"):
            await fetch()
        assert asked.is_set()
        with anyio.fail_after(5):
            await left.wait()


async def test_tokens_that_nobody_or_somebody_else_has_signed_are_refused() -> None:
    async with setting() as (issuer, tokens, _):
        claims = issuer.claims(NOW)
        public = RSA.as_pem(private=False)
        modulus = str(RSA.as_dict(private=False)["n"]).encode()
        other = RSAKey.generate_key(2048, {"kid": "rsa"})
        forged = {
            "alg none": forge(claims, {"alg": "none", "kid": "rsa"}),
            "alg None": forge(claims, {"alg": "None", "kid": "rsa"}),
            "no alg": forge(claims, {"kid": "rsa"}),
            "alg a list": forge(claims, {"alg": ["RS256"], "kid": "rsa"}),
            "public key as the secret": forge(claims, {"alg": "HS256", "kid": "rsa"}, public),
            "modulus as the secret": forge(claims, {"alg": "HS256", "kid": "rsa"}, modulus),
            "HMAC called RS256": forge(claims, {"alg": "RS256", "kid": "rsa"}, public),
            "another key": sign(claims, key=other),
            "a key in the header": sign(
                claims, header={"jwk": other.as_dict(private=False)}, key=other
            ),
            "a key elsewhere": sign(claims, header={"jku": "http://127.0.0.1:1/"}, key=other),
            "RS512": sign(claims, header={"alg": "RS512"}, key=RSA),
            "PS256": sign(claims, header={"alg": "PS256"}, key=RSA),
            "another type of key": sign(claims, header={"kid": "ec"}, key=RSA),
            "critical field": sign(claims, header={"crit": ["exp"], "exp": 1}),
            "logout token": sign(claims, header={"typ": "logout+jwt"}),
            "no key named": sign(claims, header={"kid": None}),
            "kid a number": forge(claims, {"alg": "RS256", "kid": 1}),
            "no object": sign(["sub"]),
            "two parts": sign(claims).rpartition(".")[0],
            "encrypted": sign(claims) + ".a.b",
            "deep header": "WyJbW1tb" * 900 + ".e30.e30",
            "changed": sign(claims | {"sub": "bob"}).rpartition(".")[0]
            + sign(claims)[sign(claims).rindex(".") :],
        }
        for name, token in forged.items():
            assert await refusal(tokens, token), name
        assert issuer.reads == 1


OTHER_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"aud": "shop"}, "for another audience"),
    ({"aud": ["account"]}, "for another audience"),
    ({"aud": {"todoku": 1}}, "for another audience"),
    ({"aud": None}, "lacks aud"),
    ({"iss": "https://evil.example"}, "from another issuer"),
    ({"iss": None}, "lacks iss"),
    ({"exp": None}, "lacks exp"),
    ({"exp": NOW - LEEWAY_SECONDS - 1}, "has expired"),
    ({"exp": "tomorrow"}, "exp is not a time"),
    ({"exp": True}, "exp is not a time"),
    ({"nbf": NOW + LEEWAY_SECONDS + 2}, "not valid yet"),
    ({"iat": NOW + LEEWAY_SECONDS + 2}, "issued in the future"),
    ({"sub": None}, "lacks sub"),
    ({"sub": ""}, "no subject"),
    ({"sub": 7}, "no subject"),
    ({"sub": "a" * 129}, "longer than 128"),
    ({"sub": "a\0"}, "has a NUL"),
]


async def test_token_with_other_claims_is_refused() -> None:
    async with setting() as (issuer, tokens, _):
        for claims, reason in OTHER_CLAIMS:
            assert reason in await refusal(tokens, sign(issuer.claims(NOW, **claims))), claims


async def test_clocks_may_differ_by_the_leeway_and_no_token_outlives_its_end() -> None:
    async with setting() as (issuer, tokens, clock):
        early = sign(issuer.claims(NOW + LEEWAY_SECONDS - 1, nbf=NOW + LEEWAY_SECONDS - 1))
        late = sign(issuer.claims(NOW, exp=NOW - LEEWAY_SECONDS + 5))
        assert await tokens(early)
        assert await tokens(late)  # It is remembered now.
        clock.passed = 6
        assert await refusal(tokens, late) == "The token has expired."


async def test_flood_of_unknown_keys_reads_the_keys_once_in_a_while() -> None:
    async with setting() as (issuer, tokens, clock):
        for number in range(300):
            unknown = forge(issuer.claims(NOW), {"alg": "RS256", "kid": f"k{number}"}, b"x")
            assert await refusal(tokens, unknown) == "The issuer has no such key."
        assert issuer.reads == 1
        clock.passed = PAUSE_SECONDS
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(refusal, tokens, unknown)
        assert issuer.reads == 2


async def test_new_key_is_found_at_once_and_a_withdrawn_one_verifies_nothing() -> None:
    async with setting() as (issuer, tokens, clock):
        old = sign(issuer.claims(NOW))
        assert await tokens(old)
        issuer.publish(OLD_KEY, NEW_KEY)
        clock.passed = PAUSE_SECONDS
        assert await tokens(sign(issuer.claims(NOW), key=NEW_KEY))
        issuer.publish(NEW_KEY)
        clock.passed += FRESH_SECONDS + 1
        await tokens(sign(issuer.claims(NOW), key=NEW_KEY))  # It makes the keys be read again.
        assert tokens._keys._reading is not None
        await tokens._keys._reading
        assert await refusal(tokens, old) == "The issuer has no such key."


@pytest.mark.parametrize("answer", ["down", "redirect", "rubbish", "empty", "huge"])
async def test_issuer_that_fails_is_no_failure_while_its_keys_are_known(answer: str) -> None:
    async with setting() as (issuer, tokens, clock):
        token = sign(issuer.claims(NOW, exp=NOW + 2 * KEPT_SECONDS))
        assert await tokens(token)
        good = issuer.document
        issuer.status = {"down": 500, "redirect": 302}.get(answer, 200)
        if issuer.status == 200:
            issuer.document = {"rubbish": b"<html>", "empty": b'{"keys": []}'}.get(
                answer, b" " * 600_000
            )
        for _ in range(3):
            clock.passed += FRESH_SECONDS + 1
            assert await tokens(token)
            unknown = forge(issuer.claims(NOW), {"alg": "RS256", "kid": "k"}, b"x")
            assert await refusal(tokens, unknown) == "The issuer has no such key."
        clock.passed = KEPT_SECONDS + 1
        assert "are not known yet" in await refusal(tokens, token, 503)
        issuer.status, issuer.document = 200, good
        clock.passed += PAUSE_SECONDS
        assert await tokens(token)


async def test_issuer_that_was_never_reached_is_asked_once_in_a_while() -> None:
    async with setting() as (issuer, tokens, clock):
        issuer.status = 500
        token = sign(issuer.claims(NOW))
        for _ in range(20):
            assert "are not known yet" in await refusal(tokens, token, 503)
        issuer.status = 200
        assert "are not known yet" in await refusal(tokens, token, 503)
        clock.passed = PAUSE_SECONDS
        assert await tokens(token)


async def test_nobody_listens_at_the_issuer() -> None:
    issuer = Issuer()
    issuer.address = "http://127.0.0.1:1"
    tokens = tokens_of(issuer, Clock())
    assert "are not known yet" in await refusal(tokens, sign(issuer.claims(NOW)), 503)


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "https://evil.example"}, {"jwks_uri": "http://evil.example/"}, {"jwks_uri": 1}],
)
async def test_metadata_that_names_others_is_not_used(metadata: dict[str, Any]) -> None:
    async with setting() as (issuer, tokens, _):
        issuer.metadata = metadata
        assert "are not known yet" in await refusal(tokens, sign(issuer.claims(NOW)), 503)
        assert issuer.reads == 0


async def test_keys_are_read_where_the_setting_says() -> None:
    async with issuing() as issuer:
        tokens = tokens_of(issuer, Clock(), jwks_url=f"{issuer.address}/jwks.json")
        issuer.metadata = {"issuer": "another"}
        assert await tokens(sign(issuer.claims(NOW)))


def test_rubbish_in_a_key_set_is_left_out() -> None:
    good = EC.as_dict(private=False)
    rubbish: list[Any] = [
        None,
        7,
        {},
        {"kty": "EC"},
        {"kty": ["EC"], "kid": "a"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "a"},
        {"kty": "EC", "crv": "P-384", "x": good["x"], "y": good["y"]},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "a"},
        {"kty": "RSA", "n": 5, "e": [], "kid": "a"},
        OctKey.generate_key(256).as_dict(private=True),
        {"kty": "RSA", "n": "w" * 171, "e": "AQAB"},
        {**good, "kid": 5},
        {**good, "use": "enc"},
        {**good, "alg": "ES384"},
        {**good, "key_ops": "sign"},
    ]
    found = read_key_set(json.dumps({"keys": [*rubbish, good]}).encode())
    assert (found.size, set(found.by_id)) == (1, {"ec"})
    for document in (b"", b"[]", b"{}", b'{"keys": 1}', b"\xff", json.dumps({"keys": rubbish})):
        with pytest.raises(KeySetUnusable):
            read_key_set(document if isinstance(document, bytes) else document.encode())
    with pytest.raises(KeySetUnusable, match="more than 100"):
        read_key_set(json.dumps({"keys": [good] * 101}).encode())


PARTS = st.text("eyJhbGciOiJSUzI1NiJ9.-_=", max_size=60) | st.text(max_size=30)


@settings(max_examples=40)
@given(st.lists(PARTS, min_size=1, max_size=4).map(".".join))
def test_no_text_does_more_than_being_refused(token: str) -> None:
    keys = read_key_set(json.dumps({"keys": [EC.as_dict(private=False)]}).encode())
    expected = Expected(issuer="i", audience="a", leeway_seconds=0)
    with pytest.raises(TokenRefused):
        verify(token, keys, expected, datetime.fromtimestamp(NOW, UTC))


@pytest.mark.parametrize(
    ("claims", "names", "scopes"),
    [
        ({"scope": "openid email repair"}, NAMES, {"repair"}),
        ({"scope": "orders:read Orders:x :: orders:read"}, NAMES, {"orders:read"}),
        ({"scope": ["orders:read", 5, None]}, NAMES, {"orders:read"}),
        ({"scope": "operator service"}, NAMES, set()),
        ({"scope": {"orders:read": 1}}, NAMES, set()),
        ({"realm_access": {"roles": ["customer", "admin"]}}, NAMES, ROLES["customer"]),
        ({"realm_access": ["customer"]}, NAMES, set()),
        ({"realm_access.roles": "customer"}, NAMES, ROLES["customer"]),
        ({"roles": ["operator"]}, ClaimNames("scope", None), set()),
        ({"https://x/roles": ["staff"]}, ClaimNames("scope", "https://x/roles"), ROLES["staff"]),
    ],
)
def test_scopes_and_roles_are_read_where_the_settings_say(
    claims: dict[str, Any], names: ClaimNames, scopes: set[str]
) -> None:
    assert caller_of({"sub": "a", "iss": "i"} | claims, names) == Caller(
        "a", frozenset(scopes), issuer="i"
    )


async def test_remembered_tokens_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_tokens, "REMEMBERED_MAX", 10)
    async with setting() as (issuer, tokens, _):
        for number in range(30):
            await tokens(sign(issuer.claims(NOW, jti=str(number)), "EdDSA"))
        assert len(tokens._verified) == 10


async def test_customer_with_a_token_places_and_sees_own_orders_only() -> None:
    orders = system["orders"]
    item = {"productId": "prod1", "quantity": 1, "price": 100}
    async with issuing() as issuer:
        tokens = tokens_of(issuer, Clock())
        alice = {"Authorization": f"Bearer {sign(issuer.claims(NOW))}"}
        bob = {"Authorization": f"Bearer {sign(issuer.claims(NOW, sub='bob'))}"}
        running = running_together(
            [(orders.build(system.settings()), orders.build_api)], keyring=True, tokens=tokens
        )
        async with running as (app,), client(app) as http:
            order = {"userId": "alice", "items": [item]}
            placed = await http.post("/orders", json=order, headers=alice)
            assert placed.status_code == 201, placed.text
            order_id = placed.json()["id"]
            history = await http.get(f"/orders/{order_id}/events", headers=alice)
            assert history.json()["items"][0]["actor"] == "alice"
            assert (await http.get(f"/orders/{order_id}", headers=bob)).status_code == 404
            assert (await http.post("/orders", json=order, headers=bob)).status_code == 403
            assert (await http.post("/pauses", json={}, headers=alice)).status_code == 403
            shown = (await http.get("/whoami", headers=alice)).json()
            assert (shown["actor"], shown["keyId"], shown["issuer"]) == (
                "alice",
                None,
                issuer.address,
            )
            expired = sign(issuer.claims(NOW, exp=NOW - 100))
            refused = await http.get("/whoami", headers={"Authorization": f"Bearer {expired}"})
            assert refused.json()["detail"] == "The token has expired."
            challenge = 'Bearer realm="todoku", error="invalid_token"'
            assert refused.headers["WWW-Authenticate"] == challenge


def test_doctor_says_whether_the_keys_of_the_issuer_can_be_read() -> None:
    settings_of = partial(system.settings, auth="required", oidc_audience="todoku")
    (found,) = exposure.issuer(settings_of(oidc_issuer="http://127.0.0.1:1"))
    assert found.verdict is CheckStatus.WRONG
    assert "no access token can be verified" in found.fix
    assert list(exposure.issuer(system.settings())) == []


async def test_doctor_counts_the_usable_keys() -> None:
    async with issuing() as issuer:
        given = system.settings(auth="required", oidc_audience="todoku", oidc_issuer=issuer.address)
        (found,) = await anyio.to_thread.run_sync(lambda: list(exposure.issuer(given)))
    assert (found.verdict, found.found) == (CheckStatus.OK, f"3 usable keys of {issuer.address}")

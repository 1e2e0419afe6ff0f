"""API keys at every service of a real stack: created, verified, limited to own orders, revoked."""

import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import anyio
import httpx
import msgspec
import pytest
from sqlalchemy import Connection

from todoku.bootstrap_key import read_or_make
from todoku.cli.responses import CreatedKey, KeyDetails, KeyList
from todoku.database import Database
from todoku.engine import ApiKeys
from todoku.identity.keys import ApiKey, new_key, parse
from todoku.identity.scopes import ROLES
from todoku.settings import SettingsInvalid
from todoku.system import system
from todoku.web import event_streams, keyring
from todoku.web.keys import api_keys
from web.edge import client, running_together

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 5.0
ITEM = {"productId": "prod1", "quantity": 1, "price": 100}
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Stack(NamedTuple):
    """A client of each service, and a key of an operator."""

    orders: httpx.AsyncClient
    inventory: httpx.AsyncClient
    shipping: httpx.AsyncClient
    operator: Mapping[str, str]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def first_key(connection: Connection) -> str:
    key, key_id = new_key()
    parsed = parse(key)
    assert parsed is not None
    scopes = tuple(sorted(ROLES["operator"]))
    row = ApiKey(id=key_id, digest=parsed[1], owner="root", scopes=scopes, created_at=NOW)
    api_keys.keep(connection, [row])
    return key


@asynccontextmanager
async def stack() -> AsyncIterator[Stack]:
    """Run every service with required credentials, and one key at each of them."""
    settings = system.settings()
    services = [(each.build(settings), each.build_api) for each in system]
    databases: list[Database] = []
    async with running_together(services, databases=databases, keyring=True) as apps:
        with databases[0].transaction() as connection:
            key = first_key(connection)
            row = api_keys.read(connection)
        for database in databases[1:]:
            with database.transaction() as connection:
                api_keys.keep(connection, row.values())
        async with client(apps[0]) as orders, client(apps[1]) as stock, client(apps[2]) as ship:
            yield Stack(orders, stock, ship, bearer(key))


async def create(on: Stack, owner: str, *scopes: str, **more: str) -> dict[str, Any]:
    body = {"owner": owner, "scopes": scopes} | more
    response = await on.orders.post("/keys", json=body, headers=on.operator)
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def until(http: httpx.AsyncClient, path: str, key: str, status: int) -> httpx.Response:
    """Return the response of this status, once the service gives it."""
    with anyio.fail_after(BOUND_SECONDS):
        while True:
            response = await http.get(path, headers=bearer(key))
            if response.status_code == status:
                return response
            await anyio.sleep(0.02)


async def test_key_is_known_and_revoked_at_every_service_within_five_seconds() -> None:
    async with stack() as on:
        created = await create(on, "alice", "staff")
        key, key_id = created["key"], created["id"]
        for http, path in (
            (on.orders, "/orders"),
            (on.inventory, "/products"),
            (on.shipping, "/shipments"),
        ):
            await until(http, path, key, 200)
        await on.orders.post(f"/keys/{key_id}/revoke", headers=on.operator)
        for http, path in (
            (on.orders, "/orders"),
            (on.inventory, "/products"),
            (on.shipping, "/shipments"),
        ):
            refused = await until(http, path, key, 401)
            assert refused.json()["detail"] == "The key is revoked."
            assert refused.headers["WWW-Authenticate"] == (
                'Bearer realm="todoku", error="invalid_token"'
            )
        shown = (await on.shipping.get(f"/keys/{key_id}", headers=on.operator)).json()
        assert shown["revokedAt"] is not None
        assert not {"key", "digest"} & shown.keys()


async def test_stream_ends_when_its_key_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_streams, "RECHECK_SECONDS", 0.05)
    async with stack() as on:
        created = await create(on, "alice", "orders:read")
        await until(on.orders, "/orders", created["key"], 200)
        ended: list[httpx.Response] = []

        async def follow() -> None:
            # This client returns a response when it has ended.
            path = "/orders/stream"
            ended.append(await on.orders.get(path, headers=bearer(created["key"]), timeout=30))

        with anyio.fail_after(BOUND_SECONDS):
            async with anyio.create_task_group() as group:
                group.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                assert not ended
                await on.orders.post(f"/keys/{created['id']}/revoke", headers=on.operator)
        assert ended[0].status_code == 200


async def test_whoami_tells_each_caller_what_its_credential_says() -> None:
    async with stack() as on:
        created = await create(on, "alice", "orders:read:own")
        for http in (on.orders, on.inventory, on.shipping):
            shown = await until(http, "/whoami", created["key"], 200)
            assert shown.json() == {
                "auth": "required",
                "actor": "alice",
                "keyId": created["id"],
                "issuer": None,
                "scopes": ["orders:read:own"],
            }
            assert (await http.get("/whoami")).status_code == 401


async def test_whoami_says_that_credentials_are_not_looked_at() -> None:
    orders = next(iter(system))
    async with (
        running_together([(orders.build(system.settings()), orders.build_api)]) as (app,),
        client(app) as http,
    ):
        shown = await http.get("/whoami", headers=bearer(new_key()[0]))
    assert shown.json() == {
        "auth": "none",
        "actor": None,
        "keyId": None,
        "issuer": None,
        "scopes": [],
    }


async def test_command_line_reads_what_services_tell_of_keys() -> None:
    async with stack() as on:
        created = await create(on, "alice", "staff", expiresAt="2030-01-02T03:04:05Z")
        assert msgspec.convert(created, CreatedKey).id == created["id"]
        listed = msgspec.json.decode(
            (await on.orders.get("/keys", headers=on.operator)).content, type=KeyList
        )
        keys = [msgspec.json.decode(each, type=KeyDetails) for each in listed.items]
        assert {each.owner for each in keys} == {"root", "alice"}


async def test_orders_of_others_do_not_exist_for_a_customer() -> None:
    async with stack() as on:
        mallory = bearer((await create(on, "mallory", "customer"))["key"])
        order = {"userId": "alice", "items": [ITEM]}
        assert (await on.orders.post("/orders", json=order, headers=mallory)).status_code == 403
        placed = await on.orders.post("/orders", json=order, headers=on.operator)
        order_id = placed.json()["id"]
        unknown = "0190a5a8-0000-7000-8000-000000000000"
        for path in ("", "/events", "/stream", "/holds"):
            there = await on.orders.get(f"/orders/{order_id}{path}", headers=mallory)
            nowhere = await on.orders.get(f"/orders/{unknown}{path}", headers=mallory)
            assert there.status_code == nowhere.status_code == 404, path
            assert there.json()["detail"].replace(order_id, unknown) == nowhere.json()["detail"]
        cancelled = await on.orders.post(f"/orders/{order_id}/cancel", json={}, headers=mallory)
        assert cancelled.status_code == 404
        hold = {"holder": "mallory", "reason": "Mine."}
        held = await on.orders.post(f"/orders/{order_id}/holds", json=hold, headers=mallory)
        assert held.status_code == 403
        assert (await on.orders.get("/changes", headers=mallory)).status_code == 403
        assert (await on.orders.get("/orders?userId=alice", headers=mallory)).status_code == 403
        listed = await on.orders.get("/orders?count=true", headers=mallory)
        assert (listed.json()["items"], listed.json()["total"]) == ([], 0)


async def test_customer_places_reads_and_cancels_own_orders() -> None:
    async with stack() as on:
        alice = bearer((await create(on, "alice", "customer"))["key"])
        order = {"userId": "alice", "items": [ITEM]}
        placed = await on.orders.post("/orders", json=order, headers=alice)
        assert placed.status_code == 201
        order_id = placed.json()["id"]
        shown = await on.orders.get(f"/orders/{order_id}/events", headers=alice)
        assert shown.json()["items"][0]["actor"] == "alice"
        listed = (await on.orders.get("/orders?userId=alice", headers=alice)).json()["items"]
        assert [each["id"] for each in listed] == [order_id]
        cancelled = await on.orders.post(f"/orders/{order_id}/cancel", json={}, headers=alice)
        assert cancelled.status_code in (202, 409)  # It may have ended for lack of stock.


async def test_key_says_who_decides_and_nobody_else_may_be_named() -> None:
    async with stack() as on:
        carol = bearer((await create(on, "carol", "operator"))["key"])
        why = {"reason": "The warehouse is closed."}
        paused = await on.orders.post("/pauses", json=why, headers=carol)
        assert (paused.status_code, paused.json()["pausedBy"]) == (201, "carol")
        other = await on.orders.post("/pauses", json=why | {"by": "alice"}, headers=carol)
        assert (other.status_code, other.json()["errors"][0]["pointer"]) == (422, "#/by")


async def test_nobody_creates_a_key_that_permits_more_than_their_own() -> None:
    async with stack() as on:
        clerk = bearer((await create(on, "clerk", "keys:write", "orders:read"))["key"])
        for scopes, status in ((["orders:read:own"], 201), (["repair"], 403), (["operator"], 403)):
            body = {"owner": "clerk", "scopes": scopes}
            response = await on.orders.post("/keys", json=body, headers=clerk)
            assert response.status_code == status, scopes


async def test_wrong_secrets_unknown_keys_and_expired_ones_are_refused() -> None:
    async with stack() as on:
        created = await create(on, "alice", "staff", expiresAt="2020-01-01T00:00:00Z")
        expired = await on.orders.get("/orders", headers=bearer(created["key"]))
        assert (expired.status_code, expired.json()["detail"]) == (401, "The key has expired.")
        good = on.operator["Authorization"].removeprefix("Bearer ")
        for wrong in (
            good[:-1] + ("A" if good[-1] != "A" else "B"),
            new_key()[0],
            "tdk_",
            "x" * 20_000,
            good + "\n",
        ):
            with_wrong = {"Authorization": f"Bearer {wrong}".strip()}
            if wrong.strip() == good:
                continue
            response = await on.orders.get("/orders", headers=with_wrong)
            assert response.status_code == 401, wrong[:30]
        assert (
            await on.orders.get("/orders", headers={"Authorization": "Basic eDp5"})
        ).status_code == 401


async def test_unknown_keys_do_not_make_the_service_read_its_database_each_time() -> None:
    async with stack() as on:
        await on.orders.get("/orders", headers=on.operator)
        keyring_reads = 0
        read = api_keys.read

        def counted(connection: Connection) -> Any:
            nonlocal keyring_reads
            keyring_reads += 1
            return read(connection)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(api_keys), "read", lambda _, connection: counted(connection))
            began = anyio.current_time()
            for _ in range(300):
                assert (
                    await on.orders.get("/orders", headers=bearer(new_key()[0]))
                ).status_code == 401
            seconds = anyio.current_time() - began
        assert keyring_reads <= 6 + 6 * seconds


async def test_requests_go_on_while_known_keys_are_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stack() as on:
        await on.orders.get("/orders", headers=on.operator)
        begun, may_end = threading.Event(), threading.Event()
        read = type(api_keys).read

        def slow(table: ApiKeys, connection: Connection) -> Any:
            begun.set()
            may_end.wait(BOUND_SECONDS)
            return read(table, connection)

        monkeypatch.setattr(type(api_keys), "read", slow)
        late_seconds = (keyring.READ_EVERY_SECONDS + keyring.KNOWN_SECONDS_MAX) / 2
        monkeypatch.setattr(keyring, "monotonic", lambda: monotonic() + late_seconds)
        for _ in range(3):
            assert (await on.orders.get("/orders", headers=on.operator)).status_code == 200
        assert await anyio.to_thread.run_sync(begun.wait, BOUND_SECONDS)
        assert not may_end.is_set()
        may_end.set()


def test_bootstrap_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = read_or_make(path)
    assert parse(key) is not None
    assert read_or_make(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsInvalid, match="can be neither read nor made"):
        read_or_make(tmp_path / "no" / "key")


def test_key_has_256_random_bits_and_no_secret_in_what_is_kept() -> None:
    key, key_id = new_key()
    parsed = parse(key)
    assert parsed is not None
    assert parsed[0] == key_id
    assert parsed[1] not in key
    assert len(key.split("_", 2)[2]) == 43  # 32 bytes in base64url

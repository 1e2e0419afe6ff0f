"""The operations on pauses, of a real shipping service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest

from todoku.settings import Settings
from todoku.shipping.http import shipping_api
from todoku.shipping.service import shipping_service
from web.edge import client, running

pytestmark = pytest.mark.anyio

UNKNOWN: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
WHY: Final = {"reason": "The warehouse is closed.", "by": "alice"}


@asynccontextmanager
async def shipping() -> AsyncIterator[httpx.AsyncClient]:
    async with running(shipping_service(Settings()), shipping_api) as app, client(app) as http:
        yield http


async def test_pause_is_shown_with_who_and_why_until_it_is_resumed() -> None:
    async with shipping() as http:
        response = await http.post("/pauses", json={"target": "carrier", **WHY})
        assert response.status_code == 201
        pause: dict[str, Any] = response.json()
        assert response.headers["Location"] == f"/pauses/{pause['id']}"
        assert pause["state"] == "PAUSED"
        assert (pause["target"], pause["pausedBy"]) == ("carrier", "alice")
        listed = (await http.get("/pauses?state=PAUSED")).json()["items"]
        assert listed == [pause] == [(await http.get(f"/pauses/{pause['id']}")).json()]
        resumed = await http.post(f"/pauses/{pause['id']}/resume", json={"by": "bob"})
        assert resumed.status_code == 200
        assert (resumed.json()["state"], resumed.json()["resumedBy"]) == ("RESUMED", "bob")
        assert (await http.get("/pauses?state=PAUSED")).json()["items"] == []


async def test_product_is_paused_by_its_id() -> None:
    async with shipping() as http:
        response = await http.post("/pauses", json={"target": "product:茶/緑 1", **WHY})
        assert (response.status_code, response.json()["target"]) == (201, "product:茶/緑 1")


async def test_pause_without_a_target_is_one_of_the_service_and_leaves_it_ready() -> None:
    async with shipping() as http:
        assert (await http.post("/pauses", json=WHY)).json()["target"] == "service"
        assert (await http.get("/readyz")).status_code == 200


async def test_repeated_request_is_one_pause() -> None:
    async with shipping() as http:
        key = {"Idempotency-Key": '"k1"'}
        first = await http.post("/pauses", json=WHY, headers=key)
        again = await http.post("/pauses", json=WHY, headers=key)
        assert again.json() == first.json()
        assert len((await http.get("/pauses")).json()["items"]) == 1


async def test_pages_of_pauses_are_the_latest_first() -> None:
    async with shipping() as http:
        ids = [(await http.post("/pauses", json=WHY)).json()["id"] for _ in range(3)]
        first = (await http.get("/pauses?limit=2")).json()
        second = (await http.get(f"/pauses?limit=2&cursor={first['nextCursor']}")).json()
        assert [item["id"] for item in (*first["items"], *second["items"])] == ids[::-1]
        assert second["nextCursor"] is None


@pytest.mark.parametrize(
    ("path", "body", "slug"),
    [
        ("/pauses", {"target": "fax", **WHY}, "unknown-pause-target"),
        ("/pauses", {"target": "product:", **WHY}, "unknown-pause-target"),
        ("/pauses", {"target": "fax:1", **WHY}, "unknown-pause-target"),
        ("/pauses", {"target": "carrier", "by": "alice"}, "invalid-body"),
        (f"/pauses/{UNKNOWN}/resume", {"by": "bob"}, "unknown-pause"),
        (f"/pauses/{UNKNOWN}/resume", {"by": "bob", "rate": 0}, "invalid-body"),
        (f"/pauses/{UNKNOWN}/resume", {"by": "bob", "rate": 1_001}, "invalid-body"),
    ],
)
async def test_invalid_request_is_refused(path: str, body: dict[str, Any], slug: str) -> None:
    async with shipping() as http:
        response = await http.post(path, json=body)
        assert response.json()["type"] == f"/problems/{slug}"


async def test_resume_of_what_is_not_paused_is_refused() -> None:
    async with shipping() as http:
        pause = (await http.post("/pauses", json=WHY)).json()
        path = f"/pauses/{pause['id']}/resume"
        await http.post(path, json={"by": "bob"})
        response = await http.post(path, json={"by": "carol"})
        assert response.status_code == 409
        assert response.json()["type"] == "/problems/not-paused"
        assert "bob" in response.json()["detail"]

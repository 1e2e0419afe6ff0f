"""The audit log at the HTTP edge: which requests leave a row, and how rows are listed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest
from starlette.authentication import SimpleUser
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.engine import AuditEntry, EngineConfig, MailboxFull
from todoku.identity import OPEN
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web.auditing import RefusalMiddleware, audited
from todoku.web.call import Call
from todoku.web.operations import Operation
from todoku.web.problems import Problem, ProblemType
from todoku.web.reply import Reply
from web.edge import client, running

pytestmark = pytest.mark.anyio

NEW: Final = {
    "userId": "u1",
    "currency": "JPY",
    "items": [{"productId": "p1", "quantity": 1, "price": 100}],
}
UNKNOWN: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"


class Named:
    """A middleware that believes everybody who says who they are."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = dict(scope["headers"]).get(b"x-name", b"").decode()
        if name:
            scope["user"] = SimpleUser(name)
        await self._app(scope, receive, send)


class Kept:
    """Keeps what is written, noted and counted, in the place of an `AuditKeeper`."""

    def __init__(self) -> None:
        self.written: list[AuditEntry] = []
        self.noted: list[AuditEntry] = []
        self.counted: list[tuple[str | None, str]] = []

    async def write(self, entry: AuditEntry) -> None:
        self.written.append(entry)

    def note(self, entry: AuditEntry) -> None:
        self.noted.append(entry)

    def count(self, source: str | None, outcome: str) -> None:
        self.counted.append((source, outcome))


def operation(handle: Any, method: Any = "POST") -> Operation:
    return Operation(
        id="change",
        method=method,
        path="/x/{id}",
        scope=OPEN,
        summary="",
        handle=handle,
        responses=[],
    )


@asynccontextmanager
async def orders() -> AsyncIterator[httpx.AsyncClient]:
    options: dict[str, Any] = {"middleware": [Middleware(Named)]}
    service = orders_service(Settings())
    config = EngineConfig(audit=True)
    async with (
        running(service, orders_api, config=config, **options) as app,
        client(app) as http,
    ):
        yield http


async def place(http: httpx.AsyncClient, name: str, **headers: str) -> str:
    response = await http.post("/orders", json=NEW, headers={"X-Name": name, **headers})
    assert response.status_code == 201, response.text
    order_id: str = response.json()["id"]
    return order_id


async def rows(http: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    response = await http.get("/audit", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["items"]
    return [row for row in found if row["operation"] != "begin"]


async def test_request_that_changes_something_leaves_a_row_and_reading_leaves_none() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    async with orders() as http:
        order_id = await place(http, "alice", traceparent=f"00-{trace}-00f067aa0ba902b7-01")
        await http.get(f"/orders/{order_id}", headers={"X-Name": "alice"})
        (row,) = await rows(http)
        assert (row["operation"], row["outcome"]) == ("placeOrder", "done")
        assert (row["actor"], row["subject"], row["traceId"]) == ("alice", order_id, trace)


async def test_rows_are_listed_page_by_page_the_latest_first() -> None:
    async with orders() as http:
        ids = [await place(http, name) for name in ("alice", "bob", "alice")]
        first = (await http.get("/audit?limit=2")).json()
        second = (await http.get(f"/audit?limit=2&cursor={first['nextCursor']}")).json()
        listed = [row["subject"] for row in (*first["items"], *second["items"])]
        assert listed == [*ids[::-1], None]
        assert second["nextCursor"] is None
        foreign = await http.get(f"/audit?actor=alice&cursor={first['nextCursor']}")
        assert foreign.status_code == 400


async def test_rows_are_chosen_by_actor_operation_outcome_and_subject() -> None:
    async with orders() as http:
        first, second = await place(http, "alice"), await place(http, "bob")
        assert [row["subject"] for row in await rows(http, actor="alice")] == [first]
        assert [row["subject"] for row in await rows(http, subject=second)] == [second]
        assert await rows(http, actor="carol") == await rows(http, outcome="refused") == []
        assert len(await rows(http, operation="placeOrder", outcome="done")) == 2


async def test_request_that_executes_no_command_is_written_before_its_response() -> None:
    async with orders() as http:
        answer = await http.post("/events/send-again", json={}, headers={"X-Name": "bob"})
        assert answer.status_code == 202
        (row,) = await rows(http)
        assert (row["operation"], row["outcome"], row["actor"]) == (
            "sendEventsAgain",
            "done",
            "bob",
        )


async def test_refused_command_is_committed_with_its_batch() -> None:
    async with orders() as http:
        answer = await http.post(f"/orders/{UNKNOWN}/cancel", json={}, headers={"X-Name": "alice"})
        assert answer.status_code == 404
        (row,) = await rows(http)
        assert (row["outcome"], row["subject"]) == ("unknown-order", UNKNOWN)


async def test_refusal_before_any_command_is_noted_with_the_type_of_its_problem() -> None:
    kept: Any = Kept()

    async def full(call: Call) -> Reply:
        raise MailboxFull("?")

    with pytest.raises(MailboxFull):
        await audited(operation(full), kept, {}).handle(Call({"id": "1"}, None, None))
    assert kept.noted == [AuditEntry(operation="change", outcome="overloaded", subject="1")]
    reading = operation(full, "GET")
    assert audited(reading, kept, {}) is reading


@pytest.mark.parametrize(
    ("name", "status", "noted", "counted"),
    [
        ("alice", 403, 1, 0),
        ("alice", 429, 0, 1),
        (None, 401, 0, 1),
        (None, 404, 0, 0),
    ],
)
async def test_known_callers_have_rows_and_others_are_counted(
    name: str | None, status: int, noted: int, counted: int
) -> None:
    kept: Any = Kept()

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        raise Problem(ProblemType("no", status, "", "", ""), "No.")

    scope: Scope = {"type": "http", "method": "GET", "client": ("10.0.0.1", 1)}
    if name:
        scope["user"] = SimpleUser(name)
    with pytest.raises(Problem):
        await RefusalMiddleware(refuse, kept)(scope, None, None)  # type: ignore[arg-type]
    assert [(entry.actor, entry.outcome) for entry in kept.noted] == [("alice", "no")] * noted
    assert kept.counted == [("10.0.0.1", "no")] * counted

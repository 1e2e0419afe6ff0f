"""Context and principal of a request, as the engine and handlers receive them."""

from collections.abc import Sequence

import msgspec
import pytest
from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.database import Database
from todoku.identity import OPEN
from todoku.orders.http import orders_api
from todoku.orders.problems import UNKNOWN_ORDER
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web import (
    Api,
    Backend,
    Call,
    Context,
    Operation,
    Problem,
    Reply,
    SuccessResponse,
    application,
)
from todoku.web.call import ANONYMOUS, read_context
from web.edge import RecordingProcess, client, run_inline, running

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Seen(msgspec.Struct):
    """The principal that a handler received."""

    identity: str
    authenticated: bool


def app_with(process: RecordingProcess, middleware: Sequence[Middleware] = ()) -> ASGIApp:
    """Return an application with an operation that executes a command."""
    backend = Backend(process=process, database=Database.in_memory(), run_read=run_inline)

    async def execute(call: Call) -> Reply:
        await backend.execute("command", context=call.context, find_out="")
        user = call.principal
        return Reply(200, Seen(user.identity, user.is_authenticated))

    operation = Operation(
        id="execute",
        method="GET",
        scope=OPEN,
        path="/execute",
        summary="Execute a command",
        handle=execute,
        responses=[SuccessResponse(status=200, description="Executed.", content=Seen)],
    )
    api = Api(title="", description="", operations=[operation])
    return application(api, backend, middleware=middleware)


def context_of(headers: list[tuple[str, str]]) -> Context:
    """Return the context of a request with these headers."""
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return read_context({"headers": raw}, dict(raw), ANONYMOUS)


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        (f"00-{TRACE}", f"00-{TRACE}"),
        (f"cc-{TRACE}", f"00-{TRACE}"),
        (f"cc-{TRACE}-what-comes-later", f"00-{TRACE}"),
        (f"00-{TRACE}-what-comes-later", None),
        (f"ff-{TRACE}", None),
        (f"00-{TRACE.upper()}", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", None),
        ("", None),
    ],
)
def test_traceparent_is_forwarded_in_version_00_if_valid(sent: str, forwarded: str | None) -> None:
    assert context_of([("traceparent", sent)]) == Context(None, forwarded)


def test_two_traceparents_are_ignored() -> None:
    twice = [("traceparent", f"00-{TRACE}"), ("traceparent", f"00-{TRACE}")]
    assert context_of(twice) == Context()


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        (["rojo=00f067aa0ba902b7"], "rojo=00f067aa0ba902b7"),
        (["a=1, b=2", "t61rcWkgMzE@vendor=x"], None),
        (["a=1 ,\tb=2", ",4tenant@vendor=x y"], "a=1,b=2,4tenant@vendor=x y"),
        (["a=1,a=2"], None),
        (["A=1"], None),
        (["a"], None),
        (["a="], None),
        (["a=1=2"], None),
        (["a=\x7f"], None),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
        ([",".join(f"k{n}=v" for n in range(33))], None),
        (["a=" + "x" * 256], "a=" + "x" * 256),
        (["a=" + "x" * 257], None),
        ([f"a={'x' * 256},b={'y' * 250},c=1"], f"a={'x' * 256},b={'y' * 250}"),
        (["a=" + "x" * 256] + [f"b{n}={'y' * 256}" for n in range(9)], "a=" + "x" * 256),
        ([""], None),
    ],
)
def test_tracestate_is_forwarded_if_valid_and_bounded(
    sent: list[str], forwarded: str | None
) -> None:
    headers = [("traceparent", f"00-{TRACE}"), *(("tracestate", value) for value in sent)]
    context = context_of(headers)
    assert context.tracestate == forwarded
    assert context.traceparent == f"00-{TRACE}"


def test_tracestate_without_traceparent_is_ignored() -> None:
    assert context_of([("tracestate", "a=1")]) == Context()


class FromHeader(AuthenticationBackend):
    """Authenticate whoever names himself in a header."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-user")
        return (AuthCredentials(), SimpleUser(name)) if name else None


@pytest.mark.parametrize("name", ["alice", None])
async def test_authenticated_principal_is_the_actor_of_its_commands(name: str | None) -> None:
    process = RecordingProcess(lambda command: command)
    middleware = [Middleware(AuthenticationMiddleware, backend=FromHeader())]
    async with client(app_with(process, middleware)) as http:
        reply = await http.get("/execute", headers={"x-user": name} if name else {})
    assert reply.json() == {"identity": name or "", "authenticated": name is not None}
    assert process.contexts == [Context(actor=name)]


async def test_actor_is_recorded_in_the_history_of_an_order() -> None:
    middleware = [Middleware(AuthenticationMiddleware, backend=FromHeader())]
    order = {"userId": "u", "items": [{"productId": "p", "quantity": 1, "price": 1}]}
    orders = orders_service(Settings())
    async with running(orders, orders_api, middleware=middleware) as app, client(app) as http:
        placed = await http.post("/orders", json=order, headers={"x-user": "alice"})
        history = await http.get(placed.headers["location"] + "/events")
    assert [event["actor"] for event in history.json()["items"]] == ["alice"]


async def test_problem_of_a_middleware_is_answered_and_counted() -> None:
    class Refuse:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/execute":
                raise Problem(UNKNOWN_ORDER, "Not for you.")
            await self._app(scope, receive, send)

    process = RecordingProcess(lambda command: command)
    async with client(app_with(process, [Middleware(Refuse)])) as http:
        reply = await http.get("/execute")
        assert (reply.status_code, reply.json()["detail"]) == (404, "Not for you.")
        assert 'http_response_status_code="404"' in (await http.get("/metrics")).text
    assert process.commands == []

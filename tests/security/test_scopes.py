"""Every operation of every service is called with every role, and without a credential."""

import re
from typing import Any

import httpx
import msgspec
import pytest
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp

from todoku.database import Database
from todoku.identity import ANY, OPEN, ROLES, Caller
from todoku.identity.scopes import OPERATOR, is_scope, own
from todoku.system import system
from todoku.web import Api, Backend, Call, Limits, Operation, application
from todoku.web.application import shared_operations
from todoku.web.guard import AuthenticationMiddleware, UndeclaredScope, permit
from todoku.web.metrics import Metrics
from todoku.web.middleware import MetricsMiddleware, ProblemMiddleware
from todoku.web.operations import routes
from web.edge import RecordingProcess, client, run_inline

pytestmark = pytest.mark.anyio

SEEN: list[Call] = []


async def authenticate(role: str) -> Caller:
    """Take the role as the credential."""
    return Caller("user1", ROLES[role], role)


async def handled(call: Call) -> Response:
    SEEN.append(call)
    return Response(status_code=204)


def backend() -> Backend:
    process = RecordingProcess(lambda _: None)
    return Backend(process=process, database=Database.in_memory(), run_read=run_inline)


def operations(service: str) -> list[Operation]:
    here = backend()
    every = [*system[service].build_api(here).operations, *shared_operations(here)]
    return [msgspec.structs.replace(each, handle=handled, body=None) for each in every]


def app_of(service: str) -> ASGIApp:
    """Return an application with every operation of a service; they do nothing."""
    return Router(
        routes(operations(service), Limits(), authenticated=True),
        middleware=[
            Middleware(MetricsMiddleware, Metrics(())),
            Middleware(ProblemMiddleware, {}),
            Middleware(AuthenticationMiddleware, authenticate),
        ],
    )


def request(http: httpx.AsyncClient, operation: Operation, role: str | None) -> Any:
    path = re.sub(r"\{\w+\}", "0190a5a8-0000-7000-8000-000000000000", operation.path)
    headers = {} if role is None else {"Authorization": f"Bearer {role}"}
    return http.request(operation.method, path, headers=headers)


@pytest.mark.parametrize("service", system.names)
async def test_each_role_may_call_what_its_scopes_permit_and_nothing_else(service: str) -> None:
    async with client(app_of(service)) as http:
        for operation in operations(service):
            needed = {operation.scope} | ({own(operation.scope)} if operation.own else set())
            for role, scopes in ROLES.items():
                response = await request(http, operation, role)
                permitted = operation.scope in (OPEN, ANY) or bool(needed & scopes)
                assert (response.status_code != 403) is permitted, (operation.id, role)
                assert response.status_code != 401
                if not permitted:
                    assert response.json()["scope"] == operation.scope
                    challenge = response.headers["WWW-Authenticate"]
                    assert challenge == (
                        f'Bearer error="insufficient_scope", scope="{operation.scope}"'
                    )


@pytest.mark.parametrize("service", system.names)
async def test_without_credential_only_open_operations_answer(service: str) -> None:
    async with client(app_of(service)) as http:
        for operation in operations(service):
            response = await request(http, operation, None)
            assert (response.status_code == 401) is (operation.scope != OPEN), operation.id


async def test_metrics_need_their_scope_and_pages_are_open() -> None:
    api = Api(title="Orders", description="", operations=())
    async with client(application(api, backend(), authenticate=authenticate)) as http:
        assert (await http.get("/metrics")).status_code == 401
        customer = {"Authorization": "Bearer customer"}
        assert (await http.get("/metrics", headers=customer)).status_code == 403
        operator = {"Authorization": "Bearer operator"}
        assert (await http.get("/metrics", headers=operator)).status_code == 200
        for path in ("/", "/docs", "/problems", "/openapi.json", "/livez"):
            assert (await http.get(path)).status_code == 200, path


async def test_own_scope_limits_the_call_to_the_caller_itself() -> None:
    async with client(app_of("orders")) as http:
        SEEN.clear()
        for role in ("customer", "staff"):
            await http.get("/orders", headers={"Authorization": f"Bearer {role}"})
    assert [call.owner for call in SEEN] == ["user1", None]
    assert [call.context.actor for call in SEEN] == ["user1", "user1"]


@pytest.mark.parametrize("scope", ["", "Orders:read", "orders:", "orders read"])
def test_operation_without_a_valid_scope_does_not_start(scope: str) -> None:
    with pytest.raises(UndeclaredScope, match="The scope of an operation"):
        permit(scope, required=False)


def test_operation_has_to_declare_a_scope() -> None:
    with pytest.raises(TypeError, match="scope"):
        Operation(id="a", method="GET", path="/", summary="", handle=handled, responses=[])  # type: ignore[call-arg]


def test_scopes_of_the_operations_are_those_of_the_operator() -> None:
    declared = {each.scope for service in system.names for each in operations(service)} - {
        OPEN,
        ANY,
    }
    assert declared <= OPERATOR
    assert all(is_scope(scope) for scopes in ROLES.values() for scope in scopes)

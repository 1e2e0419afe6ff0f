"""Parts of every application: health, metrics, documents and problems."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import Gauge
from starlette.types import ASGIApp

from todoku.database import Database, DatabaseUnavailable
from todoku.engine import SteadyClock
from todoku.identity import OPEN
from todoku.web import Api, Backend, Call, Operation, Reply, SuccessResponse, application, problems
from todoku.web.health import Health
from todoku.web.problems import SHARED_PROBLEM_TYPES, ProblemType, reference
from web.edge import RecordingProcess, client, run_inline

pytestmark = pytest.mark.anyio


UNKNOWN_THING = ProblemType("unknown-thing", 404, "No such thing", "Nothing has it.", "Look.")


class Lost(Exception):
    """A domain exception."""


class ThingService:
    """An application with one operation that can be made to fail."""

    def __init__(self) -> None:
        self.database = Database.in_memory()
        self.process = RecordingProcess(lambda _: None)
        self.error: Exception | None = None
        backend = Backend(process=self.process, database=self.database, run_read=run_inline)
        operation = Operation(
            id="getThing",
            method="GET",
            scope=OPEN,
            path="/things/{thingId}",
            path_parameters={"thingId": str},
            summary="Get a thing",
            handle=self._show,
            responses=[SuccessResponse(status=200, description="The thing.", content=Health)],
        )
        self.queue = Gauge("todoku_queue", "How long the queue is.", registry=None)
        self.app: ASGIApp = application(
            Api(
                title="Things <&>",
                description="",
                operations=[operation],
                refusals={Lost: UNKNOWN_THING},
            ),
            backend,
            collectors=[self.queue],
        )

    async def _show(self, call: Call) -> Reply:
        if self.error is not None:
            raise self.error
        return Reply(200, Health(call.path["thingId"]))


@pytest.fixture
def service() -> Iterator[ThingService]:
    service = ThingService()
    with service.database:
        yield service


@pytest.fixture
async def http(service: ThingService) -> AsyncIterator[httpx.AsyncClient]:
    async with client(service.app) as http:
        yield http


def slug(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["type"].removeprefix("/problems/")


async def test_readiness_is_ok_while_database_responds(http: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz"):
        reply = await http.get(path)
        assert (reply.status_code, reply.json()["status"]) == (200, "ok")


async def test_readiness_has_time_of_the_engine(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.process.clock = SteadyClock(wall=lambda: 1_000.5, boottime=lambda: 0.0)
    reply = await http.get("/readyz")
    assert reply.json() == {"time": "1970-01-01T00:16:40.500000Z", "status": "ok"}


async def test_closed_database_fails_readiness_with_reason_but_not_liveness(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.database.close()
    reply = await http.get("/readyz")
    assert slug(reply) == (503, "not-ready")
    assert "closed" in reply.json()["detail"]
    assert (await http.get("/livez")).status_code == 200


async def test_database_without_writes_fails_readiness(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.process.database_available = False
    assert slug(await http.get("/readyz")) == (503, "not-ready")
    service.process.database_available = True
    with suppress(DatabaseUnavailable), service.database.transaction():
        raise DatabaseUnavailable
    assert slug(await http.get("/readyz")) == (503, "not-ready")
    with service.database.transaction():
        pass
    assert (await http.get("/readyz")).status_code == 200


async def test_requests_are_counted_by_method_route_and_status(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.queue.set(7)
    await http.get("/things/1")
    await http.get("/things/2")
    await http.get("/nothing/here")
    await http.delete("/things/1")
    reply = await http.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    lines = set(reply.text.splitlines())
    for method, route, status, count in (
        ("GET", "/things/{thingId}", 200, 2),
        ("GET", "", 404, 1),
        ("DELETE", "/things/{thingId}", 405, 1),
    ):
        assert (
            f'http_server_request_duration_seconds_count{{http_request_method="{method}",'
            f'http_response_status_code="{status}",http_route="{route}"}} {count}.0'
        ) in lines
    assert "todoku_queue 7.0" in lines


async def test_docs_page_loads_nothing_from_other_servers(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Things &lt;&amp;&gt;" in page.text
    assert not re.search(r"https?://", page.text)
    addresses = re.findall(r'(?:src|href|spec-url)="([^"]+)"', page.text)
    local = [address for address in addresses if not address.startswith("data:")]
    assert len(local) == 2
    for address in local:
        assert (await http.get(address)).status_code == 200


async def test_every_problem_type_has_page_and_reference_entry(
    http: httpx.AsyncClient,
) -> None:
    index = (await http.get("/problems")).text
    for kind in (*SHARED_PROBLEM_TYPES, UNKNOWN_THING):
        page = await http.get(kind.address)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "What to do" in page.text
        assert kind.address in index
        assert f"## {kind.slug}\n" in reference([kind])
    assert slug(await http.get("/problems/none")) == (404, "unknown-address")


def test_problem_types_are_ordered_by_status() -> None:
    api = Api(title="", description="", operations=[], refusals={Lost: UNKNOWN_THING})
    statuses = [kind.status for kind in api.problem_types]
    assert UNKNOWN_THING in api.problem_types
    assert statuses == sorted(statuses)


async def test_unknown_path_returns_404(http: httpx.AsyncClient) -> None:
    for path in ("/nothing", "/things", "/livez%0A", "/static/nothing", "/static/../pages.py"):
        assert slug(await http.get(path)) == (404, "unknown-address")


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml", "*/*", ""])
async def test_root_lists_documents_for_browsers_and_programs(
    http: httpx.AsyncClient, accept: str
) -> None:
    reply = await http.get("/", headers={"Accept": accept})
    assert (reply.status_code, reply.headers["vary"]) == (200, "Accept")
    if "html" in accept:
        assert "Things &lt;&amp;&gt;" in reply.text
        links = re.findall(r'href="(/[^"]*)"', reply.text)
    else:
        assert reply.json()["title"] == "Things <&>"
        links = list(reply.json()["links"].values())
    assert links == ["/docs", "/openapi.json", "/problems", "/readyz", "/metrics"]
    for link in links:
        assert (await http.get(link)).status_code == 200


async def test_unsupported_method_returns_405_with_allowed_methods(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/things/1")
    assert slug(reply) == (405, "method-not-allowed")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
    reply = await http.options("/things/1")
    assert (reply.status_code, reply.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/things/1", "/livez", "/docs", "/openapi.json", "/metrics"])
async def test_head_returns_status_and_headers_of_get(http: httpx.AsyncClient, path: str) -> None:
    got, head = await http.get(path), await http.head(path)
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_internal_error_is_logged_and_not_disclosed(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.error = RuntimeError("the password is 1234")
    with structlog.testing.capture_logs() as logged:
        reply = await http.get("/things/secret")
    assert slug(reply) == (500, "internal-error")
    assert "1234" not in reply.text
    (entry,) = logged
    assert entry["exc_info"] is service.error
    assert entry["route"] == "/things/{thingId}"
    assert "secret" not in str(entry["route"])


async def test_unavailable_database_returns_503_without_its_address(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.error = DatabaseUnavailable("postgresql://10.0.0.1/orders: refused")
    reply = await http.get("/things/1")
    assert slug(reply) == (503, "database-unavailable")
    assert "10.0.0.1" not in reply.text


async def test_domain_exception_text_becomes_problem_detail(
    http: httpx.AsyncClient, service: ThingService
) -> None:
    service.error = Lost("The thing is lost: create it again.")
    reply = await http.get("/things/1")
    assert slug(reply) == (404, "unknown-thing")
    assert reply.json()["detail"] == "The thing is lost: create it again."


async def test_openapi_document_lists_every_response_of_an_operation(
    http: httpx.AsyncClient,
) -> None:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/things/{thingId}"]["get"]
    assert operation["operationId"] == "getThing"
    assert list(operation["responses"]) == ["200", "400", "429", "500"]
    problem = operation["responses"]["400"]["content"]["application/problem+json"]
    assert set(problem["examples"]) == {"malformed-request", "invalid-parameter"}


def test_every_problem_type_of_all_services_has_a_page() -> None:
    declared = [each for each in vars(problems).values() if isinstance(each, ProblemType)]
    assert set(declared) == set(SHARED_PROBLEM_TYPES)
    assert [each.status for each in SHARED_PROBLEM_TYPES] == sorted(
        each.status for each in SHARED_PROBLEM_TYPES
    )

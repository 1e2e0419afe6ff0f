"""What every service's application has: health, metrics, documents, and sane answers to the rest."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client import Gauge
from starlette.types import ASGIApp

from todoku.database import Database, DatabaseUnavailable
from todoku.web import Answer, Api, Backend, Call, Operation, Reply, application
from todoku.web.health import Health
from todoku.web.problems import PROBLEM_TYPES, UNKNOWN_ORDER, reference
from web.edge import RecordingProcess, at_once, client

pytestmark = pytest.mark.anyio


class Lost(Exception):
    """Something the domain may say."""


class Service:
    """An application with one operation, which may be made to fail."""

    def __init__(self) -> None:
        self.database = Database.in_memory()
        self.process = RecordingProcess(lambda _: None)
        self.error: Exception | None = None
        backend = Backend(process=self.process, database=self.database, run_read=at_once)
        operation = Operation(
            id="getThing",
            method="GET",
            path="/things/{thingId}",
            path_parameters={"thingId": str},
            summary="Look at a thing",
            handle=self._show,
            answers=[Answer(status=200, meaning="The thing.", content=Health)],
        )
        self.queue = Gauge("todoku_queue", "How long the queue is.", registry=None)
        self.app: ASGIApp = application(
            Api(
                title="Things <&>",
                description="",
                operations=[operation],
                refusals={Lost: UNKNOWN_ORDER},
            ),
            backend,
            collectors=[self.queue],
        )

    async def _show(self, call: Call) -> Reply:
        if self.error is not None:
            raise self.error
        return Reply(200, Health(call.path["thingId"]))


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    with service.database:
        yield service


@pytest.fixture
async def http(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with client(service.app) as http:
        yield http


def slug(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["type"].removeprefix("/problems/")


async def test_a_service_whose_database_serves_is_ready(http: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz"):
        reply = await http.get(path)
        assert (reply.status_code, reply.json()) == (200, {"status": "ok"})


async def test_a_service_whose_database_does_not_serve_lives_and_says_why_it_is_not_ready(
    http: httpx.AsyncClient, service: Service
) -> None:
    service.database.close()
    reply = await http.get("/readyz")
    assert slug(reply) == (503, "not-ready")
    assert "closed" in reply.json()["detail"]
    assert (await http.get("/livez")).status_code == 200


async def test_a_service_whose_database_takes_no_writes_is_not_ready(
    http: httpx.AsyncClient, service: Service
) -> None:
    service.process.database_available = False
    assert slug(await http.get("/readyz")) == (503, "not-ready")


async def test_requests_are_counted_by_method_route_and_status(
    http: httpx.AsyncClient, service: Service
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


async def test_the_docs_need_no_other_server(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "Things &lt;&amp;&gt;" in page.text
    assert not re.search(r"https?://", page.text)
    addresses = re.findall(r'(?:src|href|spec-url)="([^"]+)"', page.text)
    local = [address for address in addresses if not address.startswith("data:")]
    assert len(local) == 2
    for address in local:
        assert (await http.get(address)).status_code == 200


async def test_every_problem_has_a_page_and_a_place_in_the_reference(
    http: httpx.AsyncClient,
) -> None:
    index = (await http.get("/problems")).text
    for kind in PROBLEM_TYPES.values():
        page = await http.get(kind.address)
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "What to do" in page.text
        assert kind.address in index
        assert f"## {kind.slug}\n" in reference()
    assert slug(await http.get("/problems/none")) == (404, "unknown-address")


def test_problem_types_are_in_the_order_of_their_status() -> None:
    statuses = [kind.status for kind in PROBLEM_TYPES.values()]
    assert statuses == sorted(statuses)


async def test_an_unknown_address_is_404(http: httpx.AsyncClient) -> None:
    for path in ("/", "/nothing", "/things", "/livez%0A", "/static/nothing", "/static/../pages.py"):
        assert slug(await http.get(path)) == (404, "unknown-address")


async def test_a_method_that_is_not_offered_is_answered_with_those_that_are(
    http: httpx.AsyncClient,
) -> None:
    reply = await http.post("/things/1")
    assert slug(reply) == (405, "method-not-allowed")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
    reply = await http.options("/things/1")
    assert (reply.status_code, reply.headers["allow"]) == (204, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("path", ["/things/1", "/livez", "/docs", "/openapi.json", "/metrics"])
async def test_head_is_get_without_the_body(http: httpx.AsyncClient, path: str) -> None:
    got, head = await http.get(path), await http.head(path)
    assert head.status_code == got.status_code
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_a_mistake_of_ours_is_logged_and_nothing_of_it_is_told(
    http: httpx.AsyncClient, service: Service
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


async def test_a_database_out_of_reach_is_503_and_its_address_is_not_told(
    http: httpx.AsyncClient, service: Service
) -> None:
    service.error = DatabaseUnavailable("postgresql://10.0.0.1/orders: refused")
    reply = await http.get("/things/1")
    assert slug(reply) == (503, "database-unavailable")
    assert "10.0.0.1" not in reply.text


async def test_what_the_domain_refuses_is_told_in_its_words(
    http: httpx.AsyncClient, service: Service
) -> None:
    service.error = Lost("It is lost: look under the sofa.")
    reply = await http.get("/things/1")
    assert slug(reply) == (404, "unknown-order")
    assert reply.json()["detail"] == "It is lost: look under the sofa."


async def test_the_document_names_every_answer_of_an_operation(http: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await http.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    operation = document["paths"]["/things/{thingId}"]["get"]
    assert operation["operationId"] == "getThing"
    assert list(operation["responses"]) == ["200", "400", "500"]
    problem = operation["responses"]["400"]["content"]["application/problem+json"]
    assert set(problem["examples"]) == {"malformed-request", "invalid-parameter"}

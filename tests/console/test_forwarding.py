"""The console forwards to the services, with the caller's own rights and nothing else of the caller."""

import asyncio

import pytest

from console.stub import StubService, console, console_with_service
from web.edge import listening

pytestmark = pytest.mark.anyio

BOUND_SECONDS = 10.0


async def test_request_reaches_the_service_as_it_was_sent() -> None:
    async with console_with_service() as (http, _):
        answer = await http.post(
            "/api/orders/orders/a%2Fb/cancel?x=1&x=2",
            content=b'{"reason": "r"}',
            headers={
                "Authorization": "Bearer k",
                "Idempotency-Key": '"1"',
                "If-Match": '"3"',
                "Content-Type": "application/json",
            },
        )
    seen = answer.json()
    assert (seen["method"], seen["target"]) == ("POST", "/orders/a%2Fb/cancel?x=1&x=2")
    assert seen["body"] == '{"reason": "r"}'
    assert seen["headers"]["authorization"] == "Bearer k"
    assert (seen["headers"]["idempotency-key"], seen["headers"]["if-match"]) == ('"1"', '"3"')


async def test_cookies_and_origin_stay_with_the_console() -> None:
    async with console_with_service() as (http, _):
        headers = {"Cookie": "session=1", "Origin": "http://127.0.0.1:8085", "X-Forwarded-For": "9"}
        answer = await http.get("/api/orders/orders", headers=headers)
    seen = answer.json()["headers"]
    assert not {"cookie", "origin"} & seen.keys()
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert "set-cookie" not in answer.headers


async def test_status_and_headers_of_the_service_come_back() -> None:
    async with console_with_service() as (http, _):
        answer = await http.get("/api/orders/orders?status=409")
    assert (answer.status_code, answer.headers["etag"]) == (409, '"7"')
    assert answer.headers["location"] == "/orders/1"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize("path", ["/api/nowhere/orders", "/api//orders", "/api/Orders/x"])
async def test_unknown_service_is_a_problem(path: str) -> None:
    async with console_with_service() as (http, _):
        answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/unknown-service"


@pytest.mark.parametrize(
    "path", ["/api/orders/..%2f..%2fetc", "/api/orders//evil.example/x", "/api/orders/@evil/x"]
)
async def test_no_path_leads_to_another_host(path: str) -> None:
    async with console_with_service() as (http, _):
        answer = await http.get(path)
    assert answer.status_code == 200
    assert answer.json()["headers"]["host"].startswith("127.0.0.1:")


async def test_service_that_does_not_answer_is_a_problem() -> None:
    async with console({"orders": "http://127.0.0.1:1"}) as app, listening(app) as (host, port):
        answer = await request(host, port, "GET /api/orders/orders")
    assert answer.startswith("HTTP/1.1 502 ")
    assert "/problems/service-unreachable" in answer


async def test_too_large_body_is_refused() -> None:
    async with console_with_service() as (http, _):
        answer = await http.post("/api/orders/orders", content=b"x" * 2_000)
    assert answer.status_code == 413


async def test_page_of_another_site_may_change_nothing() -> None:
    async with console_with_service() as (http, _):
        answer = await http.post("/api/orders/orders", headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403


async def test_console_answers_under_its_own_names_only() -> None:
    async with console_with_service() as (http, _):
        answer = await http.get("/api/orders/orders", headers={"Host": "evil.example"})
    assert answer.status_code == 421


async def test_stream_arrives_at_once_and_ends_with_its_reader() -> None:
    service = StubService()
    async with (
        listening(service.app) as (near, port),
        console({"orders": f"http://{near}:{port}"}) as app,
        listening(app) as (host, own_port),
    ):
        reader, writer = await asyncio.open_connection(host, own_port)
        writer.write(b"GET /api/orders/orders/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        async with asyncio.timeout(BOUND_SECONDS):
            assert b"data: 1\n\n" in await reader.readuntil(b"data: 1\n\n")
            writer.close()
            await service.closed.wait()


async def test_streams_end_when_the_console_stops() -> None:
    service = StubService()
    async with (
        listening(service.app) as (near, port),
        console({"orders": f"http://{near}:{port}"}) as app,
    ):
        async with listening(app) as (host, own_port):
            reader, writer = await asyncio.open_connection(host, own_port)
            writer.write(b"GET /api/orders/orders/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            async with asyncio.timeout(BOUND_SECONDS):
                await reader.readuntil(b"data: 1\n\n")
        async with asyncio.timeout(BOUND_SECONDS):
            await reader.read()
            await service.closed.wait()
        writer.close()


async def request(host: str, port: int, line: str) -> str:
    """Send a request line and return the whole answer."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(BOUND_SECONDS):
        answer = await reader.read()
    writer.close()
    return answer.decode()

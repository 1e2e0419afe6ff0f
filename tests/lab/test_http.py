"""Tests of the HTTP client of the laboratory."""

import asyncio
from collections.abc import Callable

import pytest

from todoku.lab.http import (
    AsyncHttpClient,
    HttpClient,
    HttpFailed,
    encode_request,
    read_response,
)

ANSWER = b'HTTP/1.1 201 Created\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{"id":"1"}'


def test_response_has_status_and_body() -> None:
    response = read_response(ANSWER)

    assert response is not None
    assert (response.status, response.body) == (201, b'{"id":"1"}')


@pytest.mark.parametrize("length", range(0, len(ANSWER), 7))
def test_incomplete_response_is_none(length: int) -> None:
    assert read_response(ANSWER[:length]) is None


def test_header_names_are_case_insensitive() -> None:
    response = read_response(b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nX: y\r\n\r\n{}")

    assert response is not None
    assert (response.status, response.body) == (503, b"{}")
    assert b"x: y" in response.head


def test_response_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="not found"):
        read_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_request_with_body_has_content_length() -> None:
    head, _, body = encode_request("POST", "h:1", "/orders", b"{}").partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /orders HTTP/1.1",
        b"Host: h:1",
        b"Content-Type: application/json",
        b"Content-Length: 2",
    ]
    assert body == b"{}"


def test_async_client_reopens_a_lost_connection() -> None:
    """The server closes the connection instead of the first response."""

    async def run() -> None:
        connections = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            if connections > 1:
                writer.write(ANSWER)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            client = AsyncHttpClient("127.0.0.1", server.sockets[0].getsockname()[1])
            with pytest.raises(ConnectionError):
                await client.send(encode_request("GET", "h", "/"))
            assert client.sent
            assert (await client.send(encode_request("GET", "h", "/"))).status == 201

    asyncio.run(run())


def test_async_client_that_cannot_connect_has_sent_nothing(
    free_ports: Callable[[int], list[int]],
) -> None:
    client = AsyncHttpClient("127.0.0.1", free_ports(1)[0])

    with pytest.raises(OSError):  # noqa: PT011 - the message is the system's
        asyncio.run(client.send(encode_request("GET", "h", "/")))
    assert not client.sent


def test_client_names_the_request_that_got_no_response(
    free_ports: Callable[[int], list[int]],
) -> None:
    (port,) = free_ports(1)

    with pytest.raises(HttpFailed, match=f"GET http://127.0.0.1:{port}/livez got no response"):
        HttpClient("127.0.0.1", port).get("/livez")

"""HTTP/1.1 client of the laboratory: blocking, asynchronous, and as a bare protocol for load.

`HttpClient` is for single requests, `AsyncHttpClient` for one client among many, `HttpConnection`
for a load generator that shares the machine with what it measures: it costs a few microseconds a
request.
"""

import asyncio
import http.client
import ssl
from collections.abc import Callable

import msgspec

JSON = "application/json"
CONTENT_LENGTH = b"content-length: "
ANSWER_SECONDS_MAX = 40.0
"""Longer than a service takes to reply that it does not know the outcome."""


class Response(msgspec.Struct, frozen=True, gc=False):
    """A response: its status, its body, and its head in lower case."""

    status: int
    body: bytes
    head: bytes = b""


class HttpFailed(OSError):
    """A request got no response, or not the expected one. `status` is that of the response, if any."""

    def __init__(self, what: str, status: int | None = None) -> None:
        super().__init__(what)
        self.status = status


class HttpClient:
    """Blocking client of one server. With `keep_open`, all requests use one connection; each carries the
    `credential`, if there is one."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_seconds: float = ANSWER_SECONDS_MAX,
        keep_open: bool = False,
        tls: ssl.SSLContext | None = None,
        credential: str | None = None,
    ) -> None:
        self._url = f"{'https' if tls else 'http'}://{host}:{port}"
        self._keep_open = keep_open
        self._headers = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        self._connection = (
            http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=tls)
            if tls
            else http.client.HTTPConnection(host, port, timeout=timeout_seconds)
        )

    def __enter__(self) -> "HttpClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> bytes:
        """Return what is at a path. Raises `HttpFailed` unless the status is 200."""
        return self.request("GET", path).body

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        allowed: tuple[int, ...] = (200,),
        key: str | None = None,
    ) -> Response:
        """Send a request, with `body` as JSON and `key` as its idempotency key. Raises `HttpFailed` for any
        other status."""
        content = None if body is None else msgspec.json.encode(body)
        headers = self._headers | ({} if body is None else {"Content-Type": JSON})
        if key is not None:
            headers["Idempotency-Key"] = f'"{key}"'
        try:
            self._connection.request(method, path, content, headers)
            with self._connection.getresponse() as response:
                answer = Response(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise HttpFailed(f"{method} {self._url}{path} got no response: {error}") from error
        if not self._keep_open:
            self._connection.close()
        if answer.status not in allowed:
            raise HttpFailed(f"{method} {self._url}{path} returned {answer.status}", answer.status)
        return answer


class HttpConnection(asyncio.Protocol):
    """A connection with one request in flight at a time.

    `answered` is called with each response. `lost` is called once, when the connection is closed: a
    request that is in flight then gets no response.
    """

    def __init__(
        self,
        answered: Callable[["HttpConnection", Response], None],
        lost: Callable[["HttpConnection"], None],
    ) -> None:
        self._answered = answered
        self._lost = lost
        self._transport: asyncio.Transport
        self._received = b""

    def send(self, request: bytes) -> None:
        """Send a request; the one before must have been answered."""
        self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        response = read_response(data)
        if response is None:
            self._received = data
        else:
            self._received = b""
            self._answered(self, response)

    def connection_lost(self, _: Exception | None) -> None:
        self._lost(self)


class AsyncHttpClient:
    """Client of one server, on one connection that is opened when needed and again after a loss.

    `sent` says whether the last request was written to a connection, so that the server may have
    received it.
    """

    def __init__(self, host: str, port: int) -> None:
        self.sent = False
        self._host = host
        self._port = port
        self._connection: HttpConnection | None = None
        self._response: asyncio.Future[Response]

    async def send(self, request: bytes) -> Response:
        """Send the bytes of a request. Raises `OSError` if there is no response."""
        self.sent = False
        loop = asyncio.get_running_loop()
        if self._connection is None:
            _, self._connection = await loop.create_connection(
                lambda: HttpConnection(self._on_response, self._on_loss), self._host, self._port
            )
        self._response = loop.create_future()
        self.sent = True
        self._connection.send(request)
        return await self._response

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _on_response(self, connection: HttpConnection, response: Response) -> None:
        if connection is self._connection and not self._response.done():
            self._response.set_result(response)

    def _on_loss(self, connection: HttpConnection) -> None:
        if connection is self._connection:
            self._connection = None
            if not self._response.done():
                self._response.set_exception(ConnectionError("the connection was lost"))


def encode_request(
    method: str,
    host: str,
    path: str,
    body: bytes = b"",
    *,
    key: str | None = None,
    credential: str | None = None,
) -> bytes:
    """Return the bytes of a request; a body is JSON, `key` its idempotency key, `credential` an API key or
    access token."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    if credential is not None:
        head += f"Authorization: Bearer {credential}\r\n"
    if key is not None:
        head += f'Idempotency-Key: "{key}"\r\n'
    if body:
        head += f"Content-Type: {JSON}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def read_response(data: bytes) -> Response | None:
    """Return the response, or None while it is incomplete.

    Raises `ValueError` for one without a Content-Length.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower() + b"\r"
    start = head.index(CONTENT_LENGTH) + len(CONTENT_LENGTH)
    length = end + 4 + int(head[start : head.index(b"\r", start)])
    if len(data) < length:
        return None
    return Response(int(data[9:12]), data[end + 4 : length], head)

"""What a service offers over HTTP: a table of operations, from which routes and documents are made."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.web.exchange import (
    COMPLETE,
    Call,
    Reply,
    decode_body,
    decode_query,
    read_body,
    traceparent,
)
from todoku.web.problems import METHOD_NOT_ALLOWED, Problem, ProblemType

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How large a body may be, and how many seconds it may take to arrive."""

    body_bytes_max: int = 2**20
    body_seconds_max: float = 10.0


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation that has no parameters after the question mark."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One way in which an operation succeeds; `headers` are names with their meanings."""

    status: int
    meaning: str
    content: type[Any]
    headers: Mapping[str, str] = {}


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One thing a client can do: parse → command → reply, with all that its documents say.

    `path` has its parameters in braces, and `path_parameters` their types, which are documented but
    not enforced: what cannot be an id is unknown. `problems` are those besides the ones that its
    query and body bring along.
    """

    id: str
    method: Method
    path: str
    summary: str
    description: str = ""
    handle: Callable[[Call], Awaitable[Reply]]
    path_parameters: Mapping[str, Any] = {}
    query: type[Any] = NoParameters
    body: type[Any] | None = None
    examples: Mapping[str, Any] = {}
    answers: Sequence[Answer]
    problems: Sequence[ProblemType] = ()


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """A service's operations; `refusals` say which problem each exception of its domain is."""

    title: str
    description: str
    operations: Sequence[Operation]
    refusals: Mapping[type[Exception], ProblemType] = {}


Serve = Callable[[Scope, Receive], Awaitable[ASGIApp]]
"""Takes a request, and gives the reply to send."""


class Endpoint:
    """All that is served at one path, by method; an ASGI application."""

    def __init__(self, methods: Mapping[str, Serve]) -> None:
        self._methods = {**methods, "OPTIONS": self._options}
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]
        self._allowed = ", ".join(sorted(self._methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._methods.get(scope["method"])
        if serve is None:
            raise method_not_allowed(self._allowed)
        reply = await serve(scope, receive)
        await reply(scope, receive, send)

    async def _options(self, scope: Scope, receive: Receive) -> ASGIApp:
        return Response(status_code=204, headers={"Allow": self._allowed})


def method_not_allowed(allowed: str) -> Problem:
    """The problem that an address has other methods."""
    return Problem(METHOD_NOT_ALLOWED, f"Use one of {allowed}.", headers={"Allow": allowed})


def routes(operations: Iterable[Operation], limits: Limits) -> list[Route]:
    """The routes on which operations are served: one a path."""
    paths: dict[str, dict[str, Serve]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method] = _served(operation, limits)
    return [Route(path, Endpoint(methods)) for path, methods in paths.items()]


def _served(operation: Operation, limits: Limits) -> Serve:
    """Read a request as the operation declares it, and have it answered.

    Bodies are decoded here, and not by the framework: once, by a prepared decoder, and what is wrong
    is answered with the field that it is wrong with.
    """
    handle = operation.handle
    no_query = operation.query()
    decoder = msgspec.json.Decoder(operation.body) if operation.body else None

    async def serve(scope: Scope, receive: Receive) -> Reply:
        headers = dict(scope["headers"])
        query, body = no_query, None
        if scope["query_string"]:
            query = decode_query(operation.query, scope["query_string"])
        if decoder is not None:
            received = await read_body(
                headers,
                receive,
                bytes_max=limits.body_bytes_max,
                seconds_max=limits.body_seconds_max,
                complete=COMPLETE in scope,
            )
            body = decode_body(decoder, received)
        return await handle(Call(scope["path_params"], query, body, traceparent(headers)))

    return serve

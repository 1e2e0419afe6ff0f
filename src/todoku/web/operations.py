"""What a service offers over HTTP: a table of operations, from which routes and documents are made."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Method

from todoku.web.exchange import (
    Call,
    Reply,
    decode_body,
    decode_query,
    read_body,
    traceparent,
)
from todoku.web.problems import ProblemType


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


Serve = Callable[[Request[Any, Any, Any]], Awaitable[Reply]]


def routes(operations: Iterable[Operation], limits: Limits) -> list[HTTPRouteHandler]:
    """The routes on which operations are served: one a path, which knows all of its methods."""
    paths: dict[str, dict[Method, Serve]] = {}
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method] = _served(operation, limits)
    return [_route(path, methods) for path, methods in paths.items()]


def _route(path: str, methods: dict[Method, Serve]) -> HTTPRouteHandler:
    if "GET" in methods:
        methods["HEAD"] = methods["GET"]

    async def dispatch(request: Request[Any, Any, Any]) -> ASGIApp:
        return await methods[request.method](request)

    template = path.replace("}", ":str}")
    return HTTPRouteHandler(template, http_method=list(methods))(dispatch)


def _served(operation: Operation, limits: Limits) -> Serve:
    """Read a request as the operation declares it, and have it answered.

    Bodies are decoded here, and not by the framework: once, by a prepared decoder, and what is wrong
    is answered with the field that it is wrong with.
    """
    handle = operation.handle
    no_query = operation.query()
    decoder = msgspec.json.Decoder(operation.body) if operation.body else None

    async def serve(request: Request[Any, Any, Any]) -> Reply:
        scope = request.scope
        headers = dict(scope["headers"])
        query, body = no_query, None
        if scope["query_string"]:
            query = decode_query(operation.query, scope["query_string"])
        if decoder is not None:
            received = await read_body(
                headers,
                request.receive,
                bytes_max=limits.body_bytes_max,
                seconds_max=limits.body_seconds_max,
            )
            body = decode_body(decoder, received)
        return await handle(Call(scope["path_params"], query, body, traceparent(headers)))

    return serve

"""Operations of a service. Routes and OpenAPI documents are generated from them."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal
from urllib.parse import unquote

import msgspec
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.web import conditions, event_streams, idempotency, prefer_wait
from todoku.web.body import BODY_RECEIVED, decode_body, read_body, require_no_body
from todoku.web.call import ANONYMOUS, Call, header_values, read_context
from todoku.web.guard import permit
from todoku.web.problems import METHOD_NOT_ALLOWED, Problem, ProblemType, ordered
from todoku.web.query import decode_query
from todoku.web.rate_limits import require_costly_quota

KEY_HEADER: Final = idempotency.HEADER.lower().encode()
PREFER_HEADER: Final = prefer_wait.HEADER.lower().encode()
IF_MATCH_HEADER: Final = conditions.HEADER.lower().encode()
LAST_EVENT_HEADER: Final = event_streams.HEADER.lower().encode()

Refusals = Mapping[type[Exception], ProblemType]
"""The problem types of a domain's exceptions."""

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Maximum size of a request body, and how many seconds it may take to arrive."""

    body_bytes_max: int = 2**20
    body_seconds_max: float = 10.0


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation without query parameters."""


class SuccessResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A successful response of an operation; `headers` maps names to descriptions. `content` is None if it
    has no body."""

    status: int
    description: str
    content: type[Any] | None
    headers: Mapping[str, str] = {}
    media_type: str = "application/json"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """An HTTP operation: method, path, handler and documentation.

    `scope` is what a caller has to be permitted, `OPEN` where anybody may call it, `ANY` where every
    valid credential suffices. With `own`, the scope with the ending `:own` suffices too, and the handler
    keeps to the orders of `Call.owner` if there is one.
    `path` has parameters in braces. `path_parameters` gives their types for the documents; they are
    not enforced, because an id that cannot exist is answered with 404. `problems` are those that do
    not follow from the query and body. With `waits`, a client may say with `Prefer: wait=N` that the
    response is to come when what it asked for has ended: see `Call.wait`. A `conditional` one takes the
    header If-Match: see `Call.if_match`. One that `streams` answers with an `EventStream`, and takes the
    header Last-Event-ID. A `costly` one has a rate limit of its own.
    """

    id: str
    method: Method
    path: str
    scope: str
    own: bool = False
    summary: str
    description: str = ""
    handle: Callable[[Call], Awaitable[ASGIApp]]
    path_parameters: Mapping[str, Any] = {}
    query: type[Any] = NoParameters
    body: type[Any] | None = None
    examples: Mapping[str, Any] = {}
    responses: Sequence[SuccessResponse]
    problems: Sequence[ProblemType] = ()
    waits: bool = False
    conditional: bool = False
    streams: bool = False
    costly: bool = False

    @property
    def changes(self) -> bool:
        """Return whether it changes something. A body is received then, also to refuse one where there is
        to be none."""
        return self.method != "GET"


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """A service's operations; `refusals` maps exceptions of its domain to problem types."""

    title: str
    description: str
    operations: Sequence[Operation]
    refusals: Refusals = {}

    @property
    def problem_types(self) -> Sequence[ProblemType]:
        """Every problem type that a response may have, ordered by status."""
        declared = (kind for operation in self.operations for kind in operation.problems)
        return ordered((*declared, *self.refusals.values()))


Handler = Callable[[Scope, Receive], Awaitable[ASGIApp]]
"""A function that takes a request and returns the response to send."""


class Endpoint:
    """The handlers of one path by method; an ASGI application."""

    def __init__(self, methods: Mapping[str, Handler]) -> None:
        self._methods = {**methods, "OPTIONS": self._options}
        if "GET" in methods:
            self._methods["HEAD"] = methods["GET"]
        self._allowed = ", ".join(sorted(self._methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._methods.get(scope["method"])
        if serve is None:
            raise method_not_allowed(self._allowed)
        response = await serve(scope, receive)
        await response(scope, receive, send)

    async def _options(self, scope: Scope, receive: Receive) -> ASGIApp:
        return Response(status_code=204, headers={"Allow": self._allowed})


class ExactRoute(Route):
    """A route that does not ignore a newline at the end of a path, as Starlette's pattern does, and for
    which an encoded slash is part of a segment: in `/products/a%2Fb` the id is `a/b`."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if b"%" in scope.get("raw_path", b"") and ":" not in self.path:
            return self._match_encoded(scope)
        # A path parameter at the end takes the newline as its own.
        if scope["path"].endswith("\n") and not self.path.endswith("}"):
            return Match.NONE, {}
        return super().matches(scope)

    def _match_encoded(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the segments of the path as they were sent, each decoded by itself."""
        given = scope["raw_path"].decode("latin-1").rstrip("/").split("/")
        expected = self.path.split("/")
        if len(given) != len(expected):
            return Match.NONE, {}
        parameters: dict[str, str] = {}
        for name, segment in zip(expected, map(unquote, given), strict=True):
            if name.startswith("{") and segment:
                parameters[name[1:-1]] = segment
            elif name != segment:
                return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": parameters}


class OperationRouter(Router):
    """Starlette's router, which looks up a path without parameters instead of trying each route."""

    def __init__(self, routes: Sequence[BaseRoute], **options: Any) -> None:
        super().__init__(routes, **options)
        self._fixed = {
            route.path: route
            for route in reversed(routes)
            if isinstance(route, ExactRoute) and "{" not in route.path
        }

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint of the route that matches."""
        route = None
        if not scope.get("root_path") and b"%" not in scope.get("raw_path", b"%"):
            route = self._fixed.get(scope["path"])
        if route is None:
            await super().app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = route, {}
        await route.app(scope, receive, send)


def method_not_allowed(allowed: str) -> Problem:
    """Return the problem that a path does not allow this method."""
    return Problem(METHOD_NOT_ALLOWED, f"Use one of {allowed}.", headers={"Allow": allowed})


def routes(
    operations: Iterable[Operation],
    limits: Limits,
    refusals: Refusals | None = None,
    authenticated: bool = False,
) -> list[ExactRoute]:
    """Return the routes of the operations, one for each path; `refusals` are those of their API.

    Unless callers have to be `authenticated`, anybody may call everything.
    """
    paths: dict[str, dict[str, Handler]] = {}
    decided = idempotency.decided(refusals or {})
    for operation in operations:
        methods = paths.setdefault(operation.path, {})
        methods[operation.method] = _serve_operation(operation, limits, decided, authenticated)
    return [ExactRoute(path, Endpoint(methods)) for path, methods in paths.items()]


def _serve_operation(
    operation: Operation,
    limits: Limits,
    decided: frozenset[type[Exception]],
    authenticated: bool,
) -> Handler:
    """Return a function that decodes a request as the operation declares it and calls its handler.

    Bodies are decoded here instead of by the framework: once, with a prepared decoder, and errors
    name the field.
    """
    handle = operation.handle
    check = permit(operation.scope, required=authenticated, has_own=operation.own)
    no_query = operation.query()
    decoder = msgspec.json.Decoder(operation.body) if operation.body else None
    changes = operation.changes
    takes_key = operation.method in idempotency.METHODS
    name = f"{operation.method} {operation.path} ".encode()
    has_query = bool(operation.query.__struct_fields__)

    async def serve(scope: Scope, receive: Receive) -> ASGIApp:
        owner = None if check is None else check(scope)
        if operation.costly:
            require_costly_quota(scope)
        headers = dict(scope["headers"])
        query, body = no_query, None
        if scope["query_string"]:
            query = decode_query(operation.query, scope["query_string"])
        if changes:
            received = await read_body(
                headers,
                receive,
                bytes_max=limits.body_bytes_max,
                seconds_max=limits.body_seconds_max,
                complete=BODY_RECEIVED in scope,
                any_type=decoder is None,
            )
            if decoder is None:
                require_no_body(received)
            else:
                body = decode_body(decoder, received)
        principal = scope.get("user", ANONYMOUS)
        context = read_context(scope, headers, principal)
        wait = None
        if operation.waits and PREFER_HEADER in headers:
            wait = prefer_wait.read_wait(header_values(scope, PREFER_HEADER), scope)
        if_match = None
        if operation.conditional and IF_MATCH_HEADER in headers:
            if_match = conditions.read_if_match(header_values(scope, IF_MATCH_HEADER))
        seen = None
        if operation.streams:
            seen = event_streams.read_last_event_id(header_values(scope, LAST_EVENT_HEADER))
        call = Call(
            scope["path_params"], query, body, principal, context, wait, if_match, seen, owner
        )
        if not (takes_key and KEY_HEADER in headers):
            return await handle(call)
        values = header_values(scope, KEY_HEADER)
        token = idempotency.begin(
            idempotency.RequestKey(
                context.actor or idempotency.NO_ONE,
                idempotency.read_key(values),
                idempotency.fingerprint(
                    name, call.path, query if has_query else None, body, if_match
                ),
                decided,
            )
        )
        try:
            return await handle(call)
        finally:
            idempotency.end(token)

    return serve

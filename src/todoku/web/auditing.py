"""Write the audit log at the HTTP edge: requests that change something, and refused ones."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec.structs import replace
from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.engine import AuditEntry, AuditKeeper, AuditRequest, request_of_task
from todoku.events import trace_id_of
from todoku.web.call import Call
from todoku.web.middleware import to_problem
from todoku.web.operations import Operation, Refusals
from todoku.web.problems import Problem

ACCESS_REFUSED: Final = frozenset({401, 403})
"""The statuses with which callers are refused that may not do what they ask for."""

TOO_FAST: Final = 429
"""The status with which callers are refused that ask too often: too many for a row each."""


def audited(operation: Operation, keeper: AuditKeeper, refusals: Refusals) -> Operation:
    """Return the operation so that each request leaves a row in the audit log, if it changes something.

    A row about a command is committed with it; one about anything else before the response.
    """
    if not operation.changes:
        return operation
    name_of = partial(problem_name, refusals=refusals)

    async def handle(call: Call) -> ASGIApp:
        request = _request(operation.id, call, name_of)
        token = request_of_task.set(request)
        try:
            response = await operation.handle(call)
        except Exception as error:
            if not request.recorded:
                keeper.note(request.entry(error))
            raise
        finally:
            request_of_task.reset(token)
        if not request.recorded:
            await keeper.write(request.entry())
        return response

    return replace(operation, handle=handle)


def problem_name(error: Exception, refusals: Refusals) -> str:
    """Return the name of the problem with which an error is answered."""
    return to_problem(error, refusals).kind.slug


def _request(operation: str, call: Call, name_of: Callable[[Exception], str]) -> AuditRequest:
    context = call.context
    return AuditRequest(
        operation=operation,
        name_of=name_of,
        actor=context.actor,
        key_id=getattr(call.principal, "key_id", None),
        subject=next(iter(call.path.values()), None),
        trace_id=trace_id_of(context.traceparent),
    )


class RefusalMiddleware:
    """Note refused requests: a row for a known caller that lacks a right; of all others only the number, by
    source and minute."""

    def __init__(self, app: ASGIApp, keeper: AuditKeeper) -> None:
        self._app = app
        self._keeper = keeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Problem as problem:
            if problem.kind.status in ACCESS_REFUSED:
                self._note(scope, problem.kind.slug)
            elif problem.kind.status == TOO_FAST:
                self._keeper.count(source_of(scope), problem.kind.slug)
            raise

    def _note(self, scope: Scope, outcome: str) -> None:
        user: Any = scope.get("user")
        if user is None or not user.is_authenticated:
            self._keeper.count(source_of(scope), outcome)
            return
        route = scope.get("route")
        entry = AuditEntry(
            operation=f"{scope['method']} {'' if route is None else route.path}".strip(),
            outcome=outcome,
            actor=user.identity,
            key_id=getattr(user, "key_id", None),
            subject=next(iter(scope.get("path_params", {}).values()), None),
        )
        self._keeper.note(entry)


def source_of(scope: Scope) -> str | None:
    """Return the address from which a request came."""
    client = scope.get("client")
    return None if client is None else str(client[0])

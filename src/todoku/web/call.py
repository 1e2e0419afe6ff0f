"""Parsed requests, and the context that goes with every command."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec
from starlette.authentication import BaseUser, UnauthenticatedUser
from starlette.types import Scope

from todoku.events import NO_CONTEXT, Context
from todoku.identity import Caller
from todoku.web.fields import canonical_uuid
from todoku.web.prefer_wait import Wait
from todoku.web.problems import INVALID_BODY, InputError, Problem

TRACESTATE_BYTES_MAX: Final = 512
"""W3C Trace Context, section 3.3.1.5: propagate at least 512 characters."""

TRACESTATE_MEMBERS_MAX: Final = 32

ANONYMOUS: Final = UnauthenticatedUser()

TRACED: Final = "todoku.traced"
"""Scope key: the traceparent of the span of a request, where requests have spans."""


class Call(msgspec.Struct, frozen=True, gc=False):
    """A parsed request: path parameters, and the query and body as the operation declares them.

    `principal` is who sends the request: a `Caller` where credentials are required, else the user that a
    middleware authenticated (Starlette's `AuthenticationMiddleware` puts it into `scope["user"]`), or
    `ANONYMOUS`. `owner` is the user to whose orders the credential is limited, None if to nobody's.
    `context` goes with commands. `wait` is set if the operation `waits` and the client prefers that.
    `if_match` has the entity tags of the header If-Match, if the operation is `conditional` and the client
    sends one, `last_event_id` what a client has seen of a stream before it was interrupted.
    """

    path: Mapping[str, str]
    query: Any
    body: Any
    principal: BaseUser = ANONYMOUS
    context: Context = NO_CONTEXT
    wait: Wait | None = None
    if_match: tuple[str, ...] | None = None
    last_event_id: str | None = None
    owner: str | None = None

    def decided_by(self, by: str | None) -> str | None:
        """Return who decides: whom the credential stands for, else who is given as `by`. Raises `Problem` if
        somebody else is given than the credential says."""
        if not isinstance(self.principal, Caller):
            return by
        if by is not None and by != self.principal.actor:
            raise _invalid_by("The credential says who decides: leave it out.")
        return self.principal.actor

    def must_be_decided_by(self, by: str | None) -> str:
        """Return who decides. Raises `Problem` if nobody is known."""
        decider = self.decided_by(by)
        if decider is None:
            raise _invalid_by("Missing: say who decides.")
        return decider

    def uuid(self, name: str, unknown: Callable[[str], Problem]) -> str:
        """Return a path parameter as a canonical UUID. Raises `unknown(value)` if it is not one."""
        value = self.path[name]
        canonical = canonical_uuid(value)
        if canonical is None:
            raise unknown(value)
        return canonical


def _invalid_by(detail: str) -> Problem:
    return Problem(INVALID_BODY, f"#/by: {detail}", errors=[InputError(detail, pointer="#/by")])


def read_context(scope: Scope, headers: Mapping[bytes, bytes], principal: BaseUser) -> Context:
    """Return the context of a request. Invalid trace headers are ignored, as W3C requires."""
    actor = principal.identity if principal.is_authenticated else None
    traceparent: str | None = scope.get(TRACED)
    if traceparent is None:
        if b"traceparent" not in headers:
            return Context(actor) if actor else NO_CONTEXT
        traceparent = read_traceparent(header_values(scope, b"traceparent"))
    if traceparent is None:
        return Context(actor)
    if b"tracestate" not in headers:
        return Context(actor, traceparent)
    return Context(actor, traceparent, _read_tracestate(header_values(scope, b"tracestate")))


def header_values(scope: Scope, name: bytes) -> list[bytes]:
    """Return every value of a header, by its name in lower case."""
    return [value for key, value in scope["headers"] if key == name]


_match_traceparent = re.compile(
    rb"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?"
).fullmatch


def read_traceparent(values: list[bytes]) -> str | None:
    """Return the only `traceparent`, in version 00; None if there is none or it is invalid."""
    match = _match_traceparent(values[0].strip()) if len(values) == 1 else None
    if match is None or (match[1] == b"00" and match[3]):
        return None
    # Later versions may append fields, and are forwarded without them (section 4).
    return f"00-{match[2].decode()}"


_is_member = re.compile(
    rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
).fullmatch


def _read_tracestate(values: Iterable[bytes]) -> str | None:
    """Return the members of `tracestate` that fit into the limits; None if any is invalid."""
    members = [m for m in (m.strip(b" \t") for m in b",".join(values).split(b",")) if m]
    keys = {member.partition(b"=")[0] for member in members}
    if len(keys) != len(members) or len(members) > TRACESTATE_MEMBERS_MAX:
        return None
    if not all(map(_is_member, members)):
        return None
    while members and len(b",".join(members)) > TRACESTATE_BYTES_MAX:
        members.pop()  # The last one is the oldest.
    return b",".join(members).decode() if members else None

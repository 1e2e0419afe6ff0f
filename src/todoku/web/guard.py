"""Find out who sends a request, and check that the caller has the scope that an operation declares."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.identity import ANY, OPEN, Caller
from todoku.identity.scopes import is_scope, own
from todoku.web.problems import MISSING_SCOPE, UNAUTHENTICATED, Problem

Authenticate = Callable[[str], Awaitable[Caller]]
"""Return who has this bearer credential. Raises `Problem` (401)."""

Permit = Callable[[Scope], str | None]
"""Return the user to whose orders a request is limited, None if to nobody's. Raises `Problem` (401, 403)."""

USER: Final = "user"
"""Scope key: who sends the request, as Starlette's `AuthenticationMiddleware` has it."""

RECHECK: Final = "todoku.recheck"
"""Scope key: authenticates the caller once more, for responses that last. Absent without a credential."""

HEALTH_PATHS: Final = frozenset({"/livez", "/readyz"})
"""They answer whatever credential is sent."""

AUTHORIZATION: Final = b"authorization"
BEARER: Final = "bearer"
CREDENTIAL_LENGTH_MAX: Final = 16_384


class UndeclaredScope(Exception):
    """An operation declares no valid scope."""


class AuthenticationMiddleware:
    """Put the `Caller` into `scope["user"]` if the request has a credential. Raises `Problem` if it is not
    valid. Operations refuse requests without one."""

    def __init__(self, app: ASGIApp, authenticate: Authenticate) -> None:
        self._app = app
        self._authenticate = authenticate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in HEALTH_PATHS:
            found = [value for name, value in scope["headers"] if name == AUTHORIZATION]
            if found:
                credential = _plain(found) or bearer_credential(
                    [value.decode("latin-1") for value in found]
                )
                scope[USER] = await self._authenticate(credential)
                scope[RECHECK] = partial(self._authenticate, credential)
        await self._app(scope, receive, send)


def permit(needed: str, *, required: bool, has_own: bool = False) -> Permit | None:
    """Return the check of an operation that needs a scope, None if there is nothing to check.

    `required`: whether callers need a credential. With `has_own`, the scope with the ending `:own` suffices,
    too. Raises `UndeclaredScope`.
    """
    if not is_scope(needed):
        raise UndeclaredScope(
            f"The scope of an operation is {needed!r}: declare one such as 'orders:read', or 'open'."
        )
    if not required or needed == OPEN:
        return None
    own_scope = own(needed) if has_own else None

    def check(scope: Scope) -> str | None:
        caller = scope.get(USER)
        if not isinstance(caller, Caller):
            raise unauthenticated("Send the header `Authorization: Bearer …`.")
        if needed == ANY or needed in caller.scopes:
            return None
        if own_scope in caller.scopes:
            return caller.subject
        raise missing_scope(needed)

    return check


def protected(
    handle: Callable[[Scope, Receive], Awaitable[ASGIApp]], needed: str, *, required: bool
) -> Callable[[Scope, Receive], Awaitable[ASGIApp]]:
    """Return a handler that answers callers with this scope only."""
    check = permit(needed, required=required)
    if check is None:
        return handle

    async def serve(scope: Scope, receive: Receive) -> ASGIApp:
        check(scope)
        return await handle(scope, receive)

    return serve


def unauthenticated(detail: str, *, invalid: bool = False) -> Problem:
    """Return the problem that there is no credential, or an `invalid` one (RFC 6750, section 3)."""
    error = ' error="invalid_token"' if invalid else ""
    return Problem(
        UNAUTHENTICATED,
        detail,
        headers={"WWW-Authenticate": f'Bearer realm="todoku"{error and ","}{error}'},
    )


def missing_scope(needed: str) -> Problem:
    """Return the problem that the credential lacks a scope (RFC 6750, section 3.1)."""
    return Problem(
        MISSING_SCOPE,
        f"The credential does not have the scope {needed!r}.",
        headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{needed}"'},
        members={"scope": needed},
    )


def _plain(headers: list[bytes]) -> str | None:
    """Return the credential of one header that is written as usual, which saves looking at it closely."""
    value = headers[0]
    if len(headers) > 1 or len(value) > CREDENTIAL_LENGTH_MAX or value[:7] != b"Bearer ":
        return None
    return value[7:].decode("latin-1").strip()


def bearer_credential(headers: list[str]) -> str:
    """Return the only credential of the headers Authorization. Raises `Problem`."""
    scheme, _, credential = headers[0].strip().partition(" ")
    credential = credential.strip()
    if len(headers) > 1 or scheme.lower() != BEARER or not credential:
        raise unauthenticated("Send one header `Authorization: Bearer …`, and no other scheme.")
    if len(credential) > CREDENTIAL_LENGTH_MAX:
        raise unauthenticated(
            f"The credential is longer than {CREDENTIAL_LENGTH_MAX:,} characters.", invalid=True
        )
    return credential

"""Limit how many requests each caller sends: a credential, else an address.

The headers are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from todoku.loopback import is_loopback
from todoku.settings import Settings
from todoku.web.buckets import Buckets, Policy, Taken
from todoku.web.call import ANONYMOUS
from todoku.web.forwarded import source_of
from todoku.web.hosts import OPEN_PATHS
from todoku.web.problems import RATE_LIMITED, Problem

LIMITER: Final = "todoku.rate_limiter"
"""Scope key: the `RateLimiter` of the application, absent if nothing is limited."""

TAKEN: Final = "todoku.rate_limits"
"""Scope key: what this request has taken from its caller's quotas."""

UNAUTHENTICATED: Final = 401


class RateLimiter:
    """The quotas of all callers of one process."""

    def __init__(
        self,
        requests: Policy,
        costly: Policy,
        failures: Policy,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._requests = Buckets(requests)
        self._costly = Buckets(costly)
        self._failures = Buckets(failures)
        self._clock = clock
        self._policies = requests.header.encode(), f"{requests.header}, {costly.header}".encode()

    def take(self, scope: Scope) -> None:
        """Take one request from the caller's quota. Raises a `Problem` if there is none left."""
        self._take(self._requests, _caller(scope), scope)

    def take_costly(self, scope: Scope) -> None:
        """Take one costly request, too."""
        self._take(self._costly, _caller(scope), scope)

    def take_failure(self, scope: Scope) -> None:
        """Count wrong credentials against the address they come from."""
        self._take(self._failures, source_of(scope), scope)

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """Return the headers that tell a caller what it has left."""
        taken: list[Taken] = scope[TAKEN]
        policies = self._policies[len(taken) - 1]
        limits = ", ".join(each.header for each in taken).encode()
        return [(b"ratelimit-policy", policies), (b"ratelimit", limits)]

    def _take(self, buckets: Buckets, caller: str, scope: Scope) -> None:
        taken = buckets.take(caller, self._clock())
        if not taken.admitted:
            raise _refusal(taken)
        scope.setdefault(TAKEN, []).append(taken)


class RateLimitMiddleware:
    """Refuse requests above their caller's quota, and tell all others what is left of it.

    It is called after the caller was authenticated. Whoever checks a service from outside is not limited.
    """

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        scope[LIMITER] = self._limiter
        self._limiter.take(scope)

        def send_with_limits(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *self._limiter.headers(scope)]
                message = {**message, "headers": headers}
            return send(message)

        await self._app(scope, receive, send_with_limits)


class FailureLimitMiddleware:
    """Count requests with wrong credentials by address, and answer those above the quota with 429.

    It calls the middleware that authenticates. Requests with right credentials are not limited: others at the
    same address could lock their sender out.
    """

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        self._app = app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Problem as problem:
            if problem.kind.status == UNAUTHENTICATED:
                self._limiter.take_failure(scope)
            raise


def require_costly_quota(scope: Scope) -> None:
    """Take a costly request from the caller's quota, if there are limits. Raises a `Problem`."""
    limiter: RateLimiter | None = scope.get(LIMITER)
    if limiter is not None:
        limiter.take_costly(scope)


def rate_limiter(settings: Settings, *, accounts: bool) -> RateLimiter | None:
    """Return the limiter that the settings ask for, None if nothing is limited. `accounts`: whether callers
    have to authenticate."""
    auto = accounts or not is_loopback(settings.host)
    if settings.rate_limits == "off" or (settings.rate_limits == "auto" and not auto):
        return None
    burst = settings.rate_limit_burst_requests
    return RateLimiter(
        Policy("requests", burst, burst / settings.rate_limit_requests_per_second),
        Policy("costly", settings.rate_limit_costly_per_minute, 60.0),
        Policy("failures", settings.rate_limit_failures_per_minute, 60.0),
    )


def _caller(scope: Scope) -> str:
    """Return whose quota a request takes from: that of its key or user, else of its address."""
    user = scope.get("user", ANONYMOUS)
    if not user.is_authenticated:
        return source_of(scope)
    key_id = getattr(user, "key_id", None)
    return f"key {key_id}" if key_id else f"user {user.identity}"


def _refusal(taken: Taken) -> Problem:
    policy = taken.policy
    return Problem(
        RATE_LIMITED,
        f"More than {policy.quota} requests in {policy.window_seconds:g} s (policy {policy.name}): send it"
        f" again in {taken.next_seconds} s.",
        headers={
            "Retry-After": str(taken.next_seconds),
            "RateLimit-Policy": policy.header,
            "RateLimit": taken.header,
        },
        members={"violated-policies": [policy.name]},
    )

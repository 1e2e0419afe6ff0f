"""Names under which a service is reached. Requests under other names, and those that pages of other sites
let a browser send, are refused.

A web page can send requests to the machine on which its reader's browser runs. If its site changes its DNS
entry meanwhile (DNS rebinding), the page can read the answers, too; their Host is then the site's.
"""

from collections.abc import Collection
from functools import lru_cache
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from todoku.loopback import is_loopback
from todoku.web.problems import FOREIGN_PAGE, UNKNOWN_HOST, Problem

PROBED_PATHS: Final = frozenset({"/livez", "/readyz"})
OPEN_PATHS: Final = PROBED_PATHS | {"/metrics"}
"""Served under any name: whoever checks a service from outside calls it by its address. Metrics only where
they need a credential, which a page of another site does not have."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

REMEMBERED_MAX: Final = 1_000


class KnownHosts:
    """The names of this machine, and `names` (hosts without a port)."""

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = {name.strip("[]").rstrip(".").lower() for name in names}
        self.includes = lru_cache(REMEMBERED_MAX)(self._includes)
        """Whether an authority (a host, perhaps with a port) is one of them."""

    def _includes(self, authority: bytes) -> bool:
        host = _host(authority.decode("latin-1").lower())
        return host in self._names or host.endswith(".localhost") or is_loopback(host)


def known_hosts(listens_on: str, public: str) -> KnownHosts | None:
    """Return the names under which a service is reached, None if it is reached under any.

    `public` are names that the operator has set, joined by commas. Without them a service that listens
    on another address than a loopback one does not know its names.
    """
    names = [name for name in map(str.strip, public.split(",")) if name]
    if not names and not is_loopback(listens_on):
        return None
    return KnownHosts([*names, listens_on])


class HostMiddleware:
    """Refuse requests under a foreign name, and changes that a page of another site wants.

    Pages of `origins` may change something, too.
    """

    def __init__(
        self,
        app: ASGIApp,
        known: KnownHosts,
        origins: Collection[str] = (),
        open_paths: Collection[str] = PROBED_PATHS,
    ) -> None:
        self._app = app
        self._open_paths = open_paths
        self._known = known
        self._origins = frozenset(origin.lower().encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in self._open_paths:
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])  # The host is in it once (`find_fault`).
        host = headers.get(b"host")
        if host is not None and not self._known.includes(host):
            raise _unknown_host(host)
        if scope["method"] in SAFE_METHODS:
            return
        origin = headers.get(b"origin")
        if self._is_foreign(origin, headers.get(b"sec-fetch-site")):
            where = "of another site" if origin is None else f"of {_shown(origin)}"
            raise Problem(FOREIGN_PAGE, f"A page {where} may not change anything here.")

    def _is_foreign(self, origin: bytes | None, site: bytes | None) -> bool:
        if origin is None:  # Not a page, or one of a browser that tells only how it is related.
            return site == b"cross-site"
        own = self._known.includes(origin.partition(b"://")[2])
        return not (own or origin.lower() in self._origins)


def _unknown_host(value: bytes) -> Problem:
    return Problem(
        UNKNOWN_HOST,
        f"This service is not called {_shown(value)}: add the name to the setting public_hosts if clients"
        " reach it under it.",
    )


def _shown(value: bytes) -> str:
    return repr(value[:255].decode("latin-1"))


def _host(authority: str) -> str:
    """Return the host of an authority, without its port, brackets and last dot."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].rstrip(".")

"""Cookies of the console, and the address under which the browser knows it."""

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import cookie_parser
from starlette.types import Scope

from todoku.web.call import header_values
from todoku.web.hosts import KnownHosts
from todoku.web.prefix import PREFIX

SESSION: Final = "todoku-session"
LOGIN: Final = "todoku-login"

LOGIN_SECONDS: Final = 600
"""How long somebody may take to log in at the issuer."""

_LOOPBACK: Final = KnownHosts()


class Browser(NamedTuple):
    """How a browser reaches the console: `secure` over TLS, at `origin`, below the path `prefix`."""

    secure: bool
    origin: str
    prefix: str
    port: str

    def cookie_name(self, name: str) -> str:
        """Return the whole name of a cookie. With `__Host-` no other host can have set it (RFC 6265bis); on
        loopback without TLS it has the port instead, since cookies of one host are shared by its ports."""
        return f"__Host-{name}" if self.secure else f"{name}-{self.port}"

    def keep(self, name: str, value: str, same_site: str, seconds: int | None = None) -> str:
        """Return the header that makes the browser keep a cookie: until it is closed, or for some seconds."""
        age = "" if seconds is None else f"; Max-Age={seconds}"
        secure = "; Secure" if self.secure else ""
        return (
            f"{self.cookie_name(name)}={value}; Path=/; HttpOnly; SameSite={same_site}{secure}{age}"
        )

    def forget(self, name: str, same_site: str) -> str:
        """Return the header that makes the browser drop a cookie."""
        return self.keep(name, "", same_site, 0)


def browser_of(scope: Scope, url: str | None, *, behind_proxy: bool) -> Browser:
    """Return how the browser that has sent this request reaches the console. `url` is what the operator has
    set; without it, the address is that of the request."""
    host = _last(scope, b"host") or "127.0.0.1"
    prefix: str = scope.get(PREFIX, "")
    if url:
        parts = urlsplit(url)
        origin, secure = f"{parts.scheme}://{parts.netloc}", parts.scheme == "https"
        return Browser(secure, origin, parts.path.rstrip("/") or prefix, str(parts.port or ""))
    secure = scope["scheme"] == "https" or not _LOOPBACK.includes(host.encode("latin-1"))
    if behind_proxy and _last(scope, b"x-forwarded-proto").lower() == "https":
        secure = True
    port = host.rpartition(":")[2]
    return Browser(
        secure,
        f"{'https' if secure else 'http'}://{host}",
        prefix,
        port if port.isdigit() else "80",
    )


def cookie_of(scope: Scope, name: str) -> str | None:
    """Return the value of a cookie."""
    for value in header_values(scope, b"cookie") or ():
        found = cookie_parser(value.decode("latin-1")).get(name)
        if found:
            return found
    return None


def _last(scope: Scope, name: bytes) -> str:
    values = header_values(scope, name) or [b""]
    return values[-1].decode("latin-1").rpartition(",")[2].strip()

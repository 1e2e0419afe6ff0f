"""Addresses of clients, also of those behind a proxy."""

import re
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

UNKNOWN: Final = "unknown"

REMEMBERED_MAX: Final = 10_000

_node = re.compile(r'for=(?:"([^"]*)"|([^;,\s]*))', re.IGNORECASE)


class ForwardedMiddleware:
    """Put the address that the proxy has seen into `scope["client"]`.

    It is the last one of X-Forwarded-For, which the proxy itself appends; earlier ones are what the client
    sent. `Forwarded` (RFC 7239) counts where there is no X-Forwarded-For. Only for services that clients
    reach through a proxy which sets one of the two, and removes the other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = _forwarded(scope)
        if address is not None:
            scope["client"] = (address, 0)
        await self._app(scope, receive, send)


def source_of(scope: Scope) -> str:
    """Return the address from which a request comes; of an IPv6 address its network (/64), which one
    customer of a provider has to himself."""
    client = scope.get("client")
    return _network(client[0]) if client else UNKNOWN


def _forwarded(scope: Scope) -> str | None:
    """Return the address of the client, None if the proxy names none."""
    by_name: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in (b"x-forwarded-for", b"forwarded"):
            by_name[name] = value  # The proxy may add a line of its own, as the last one.
    if b"x-forwarded-for" in by_name:
        return _address(by_name[b"x-forwarded-for"].decode("latin-1").rpartition(",")[2].strip())
    if b"forwarded" in by_name:
        nodes = _node.findall(by_name[b"forwarded"].decode("latin-1").rpartition(",")[2])
        return _address(nodes[-1][0] or nodes[-1][1]) if nodes else None
    return None


def _address(node: str) -> str | None:
    """Return the address of a node such as `192.0.2.1:80` or `[2001:db8::1]:80`, None if it has none."""
    if node.startswith("["):
        node = node[1:].partition("]")[0]
    elif node.count(":") == 1:
        node = node.partition(":")[0]
    try:
        return str(ip_address(node))
    except ValueError:
        return None


@lru_cache(REMEMBERED_MAX)
def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed) >> 64 << 64, 64)))

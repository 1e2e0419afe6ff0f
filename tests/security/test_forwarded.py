"""Behind a proxy, requests come from the address that it names."""

import pytest
from starlette.types import Receive, Scope, Send

from todoku.web.forwarded import ForwardedMiddleware, source_of

pytestmark = pytest.mark.anyio

DIRECT = "10.0.0.1"


async def seen(*headers: tuple[str, str]) -> str:
    """Return where a request comes from that the proxy at 10.0.0.1 sends with these headers."""
    sources = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        sources.append(source_of(scope))

    encoded = [(name.encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "headers": encoded, "client": (DIRECT, 1)}
    await ForwardedMiddleware(app)(scope, None, None)  # type: ignore[arg-type]
    return sources[0]


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("spoofed, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::6]:4711", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("unknown", DIRECT),
        ("", DIRECT),
        ("192.0.2.1,", DIRECT),
        ("192.0.2.1.5", DIRECT),
    ],
)
async def test_last_address_of_x_forwarded_for_counts(value: str, source: str) -> None:
    assert await seen(("x-forwarded-for", value)) == source


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ("for=192.0.2.1;proto=https;by=203.0.113.43", "192.0.2.1"),
        ("for=spoofed, For=192.0.2.1", "192.0.2.1"),
        ('proto=http;for="192.0.2.1:4711"', "192.0.2.1"),
        ('for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::/64"),
        ("for=_hidden", DIRECT),
        ("proto=https", DIRECT),
    ],
)
async def test_forwarded_counts_where_nothing_else_is_sent(value: str, source: str) -> None:
    assert await seen(("forwarded", value)) == source
    both = await seen(("forwarded", value), ("x-forwarded-for", "198.51.100.1"))
    assert both == "198.51.100.1"


async def test_line_that_the_proxy_adds_counts() -> None:
    source = await seen(("x-forwarded-for", "203.0.113.1"), ("x-forwarded-for", "192.0.2.1"))
    assert source == "192.0.2.1"


async def test_neighbours_in_one_ipv6_network_are_one_source() -> None:
    first = await seen(("x-forwarded-for", "2001:db8::1"))
    assert first == await seen(("x-forwarded-for", "2001:db8::ffff:1"))
    assert first != await seen(("x-forwarded-for", "2001:db8:0:1::1"))

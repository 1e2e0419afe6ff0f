"""Readiness check of a service over HTTP, as a load balancer does it."""

import asyncio
from collections.abc import Callable
from ssl import SSLContext

PROBE_SECONDS = 2.0
RESPONSE_SECONDS_MAX = 10.0
"""A service that takes longer to answer at all does not work."""


Trust = Callable[[], SSLContext | None]
"""Returns how to trust a service that speaks TLS, None if it does not. Raises `OSError`."""


def no_tls() -> None:
    """Return that a service does not speak TLS."""


async def is_ready(host: str, port: int, trust: Trust = no_tls) -> bool:
    """Return whether `GET /readyz` is answered with 200."""
    try:
        answer = await _first_line("/readyz", host, port, trust, PROBE_SECONDS)
    except (OSError, TimeoutError, ValueError):
        return False
    return answer.split(b" ")[1:2] == [b"200"]


async def unresponsive(host: str, port: int, trust: Trust = no_tls) -> str | None:
    """Return that a service does not answer at all, as a stopped process; None if it does somehow."""
    try:
        await _first_line("/livez", host, port, trust, RESPONSE_SECONDS_MAX)
    except TimeoutError:
        return f"it has not responded within {RESPONSE_SECONDS_MAX:g} s"
    except (OSError, ValueError):
        return None  # It refuses connections, or is ending: its process is seen to end.
    return None


async def _first_line(
    path: str, host: str, port: int, trust: Trust, timeout_seconds: float
) -> bytes:
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_connection(host, port, ssl=trust())
        try:
            request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            return await reader.readline()
        finally:
            writer.close()

"""Readiness check of a service over HTTP, as a load balancer does it."""

import asyncio

PROBE_SECONDS = 2.0


async def is_ready(host: str, port: int) -> bool:
    """Return whether `GET /readyz` is answered with 200."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(
                    f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
                )
                answer = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return answer.split(b" ")[1:2] == [b"200"]

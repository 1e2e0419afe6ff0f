"""File descriptors: raise the limit of the process, and keep a reserve of them.

Without a reserve, connections would leave none for databases, the broker and logs.
"""

import asyncio
import resource
from contextlib import suppress
from time import monotonic
from typing import Final

import structlog

DESCRIPTORS_MAX: Final = 2**20
RESERVE: Final = 64
LOG_INTERVAL_SECONDS: Final = 60.0

log = structlog.get_logger(__name__)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of file descriptors to the hard limit; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class DescriptorReserve:
    """Tells which connections are too many, and logs that once in a while."""

    def __init__(self) -> None:
        self._logged_at = float("-inf")

    def is_reached_by(self, transport: asyncio.BaseTransport, connections: int) -> bool:
        """Return whether a new connection took a descriptor of the reserve."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        connection = transport.get_extra_info("socket")
        # The system gives each new socket the lowest number that is free.
        if connection is None or connection.fileno() < soft - RESERVE:
            return False
        now = monotonic()
        if now - self._logged_at >= LOG_INTERVAL_SECONDS:
            self._logged_at = now
            log.warning(
                "file_descriptors_exhausted",
                limit=soft,
                reserve=RESERVE,
                connections=connections,
                advice="raise the limit of open files (ulimit -n), or start more replicas",
            )
        return True

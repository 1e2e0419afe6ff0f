"""Points at which a process can be made to crash, to test its recovery.

With `TODOKU_FAILPOINT=name:n` a process exits with `os._exit(137)`, as after a `kill -9`, when it
reaches that point for the n-th time; with `name:n@service`, only the process of that service does.
A simulator passes its own function.
"""

import os
from collections.abc import Callable
from typing import Final

POINTS: Final = (
    "before-commit",
    "after-commit",
    "before-publish",
    "after-publish",
    "before-ack",
    "after-ack",
    "before-receipt",
    "after-receipt",
    "before-effect",
    "after-effect",
)
"""Every failpoint of the engine, in the order in which a message passes them."""

Failpoint = Callable[[str], None]
"""Called with the name of the point that was reached."""


def from_environment(service: str) -> Failpoint:
    """Return the failpoint that `TODOKU_FAILPOINT` sets for this service, or `no_failpoint`."""
    wanted, _, victim = os.environ.get("TODOKU_FAILPOINT", "").partition("@")
    if not wanted or victim not in ("", service):
        return no_failpoint
    name, _, count = wanted.partition(":")
    if name not in POINTS:
        raise ValueError(f"TODOKU_FAILPOINT names {name!r}; there are {', '.join(POINTS)}")
    remaining = int(count or 1)

    def die(point: str) -> None:
        nonlocal remaining
        if point == name:
            remaining -= 1
            if remaining == 0:
                os._exit(137)

    return die


def no_failpoint(point: str) -> None:
    """Do nothing at any point."""

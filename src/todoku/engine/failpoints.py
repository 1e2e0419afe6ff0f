"""Places where a process may be made to die, so that its recovery can be tried.

A process that runs for real leaves by `os._exit(137)`, as after a `kill -9`, when it comes for the
n-th time to the point that `TODOKU_FAILPOINT=name:n` names; with `name:n@service`, only the process
of that service does. A simulator hands in its own.
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
"""Every failpoint of the engine, in the order of a message's way."""

Failpoint = Callable[[str], None]
"""Called with the name of the point that was reached."""


def from_environment(service: str) -> Failpoint:
    """The failpoint that `TODOKU_FAILPOINT` asks for in this service, or one that does nothing."""
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

"""Points at which a process can be made to crash, to test its recovery.

With `TODOKU_FAILPOINT=name:n` a process exits with `os._exit(137)`, as after a `kill -9`, when it
reaches that point for the n-th time; with `name:n@service`, only the process of that service does.
`TODOKU_FREEZE_AT`, of the same form, stops it with SIGSTOP, as a suspended machine. A simulator passes
its own function.
"""

import os
import signal
from collections.abc import Callable, Mapping
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
    """Return the failpoint that the environment sets for this service, or `no_failpoint`."""
    for variable, action in ACTIONS.items():
        wanted, _, victim = os.environ.get(variable, "").partition("@")
        if wanted and victim in ("", service):
            return _failpoint(variable, wanted, action)
    return no_failpoint


def _failpoint(variable: str, wanted: str, action: Callable[[], None]) -> Failpoint:
    name, _, count = wanted.partition(":")
    if name not in POINTS:
        raise ValueError(f"{variable} names {name!r}; there are {', '.join(POINTS)}")
    remaining = int(count or 1)

    def act(point: str) -> None:
        nonlocal remaining
        if point == name:
            remaining -= 1
            if remaining == 0:
                action()

    return act


def _die() -> None:
    os._exit(137)


def _freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


ACTIONS: Final[Mapping[str, Callable[[], None]]] = {
    "TODOKU_FAILPOINT": _die,
    "TODOKU_FREEZE_AT": _freeze,
}
"""What a process does at the failpoint that an environment variable names."""


def no_failpoint(point: str) -> None:
    """Do nothing at any point."""

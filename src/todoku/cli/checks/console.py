"""Check the console: whether it responds at its port."""

from collections.abc import Iterator

from todoku.cli.client import client
from todoku.cli.errors import CommandFailed
from todoku.diagnosis import CheckResult, ok
from todoku.local.claims import Port, refusal_of
from todoku.local.processes import describe, listener
from todoku.settings import CONSOLE, Settings, port_flag

TIMEOUT_SECONDS = 2.0


def console(settings: Settings) -> Iterator[CheckResult]:
    """Report where the console is. Without it the services run all the same, so it is never wrong."""
    if not settings.console:
        return
    address = settings.http_url(CONSOLE)
    if _responds(settings):
        yield ok(CONSOLE, f"responds at {address}")
        return
    number = settings.port(CONSOLE)
    if refusal_of(Port(settings.host, number, CONSOLE, port_flag(CONSOLE))) is None:
        yield ok(CONSOLE, f"does not run; its port {number} is free")
        return
    user = listener(number)
    by = describe(user) if user else "another program"
    yield ok(CONSOLE, f"its port {number} is in use by {by}; it would take the next free one")


def _responds(settings: Settings) -> bool:
    try:
        found = client(CONSOLE, None, settings, timeout_seconds=TIMEOUT_SECONDS).get("/api")
    except CommandFailed:
        return False
    return b'"services"' in found

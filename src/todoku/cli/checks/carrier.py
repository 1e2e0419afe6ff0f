"""Check the carrier: open shipments whose last call to it failed."""

from collections.abc import Container, Iterator

from todoku.cli.checks import CheckResult, ok, warning, wrong
from todoku.cli.client import ServiceClient
from todoku.cli.errors import CommandFailed
from todoku.cli.formatting import counted
from todoku.cli.responses import Shipment
from todoku.settings import Settings

SERVICE = "shipping"
TIMEOUT_SECONDS = 2.0
NEWEST = 200
CALLS_MIN = 2
"""One call without an answer is nothing unusual: it is repeated."""

ERROR_CHARACTERS_MAX = 200


def carrier(settings: Settings, running: Container[str]) -> Iterator[CheckResult]:
    """Check the newest shipments; `running` are the services that respond."""
    if SERVICE not in running:
        return
    client = ServiceClient(SERVICE, settings.http_url(SERVICE), timeout_seconds=TIMEOUT_SECONDS)
    try:
        newest = client.list("/shipments", {}, items_max=NEWEST)
        yield summary([client.read(raw, Shipment) for raw in newest])
    except CommandFailed as failure:
        error = str(failure).removeprefix("todoku: ").splitlines()[0]
        yield warning("carrier", "the shipments cannot be read", fix=error)


def summary(shipments: list[Shipment]) -> CheckResult:
    """Return whether the carrier accepts or rejects these shipments, the newest first."""
    waiting = [each for each in shipments if each.last_error and each.attempts >= CALLS_MIN]
    answered = [
        each for each in shipments if (each.tracking_number or each.reason) and not each.last_error
    ]
    if not waiting:
        return ok(
            "carrier",
            f"no shipment waits for an answer; {counted(len(answered), 'shipment')} answered",
        )
    example = waiting[0]
    error = (example.last_error or "")[:ERROR_CHARACTERS_MAX]
    found = (
        f"{counted(len(waiting), 'open shipment')} without an answer after several calls: {error}"
    )
    fix = (
        "check that the carrier is reachable, and the log of shipping (`carrier_call_failed`);"
        f" `todoku shipment show {example.id}` shows the next call"
    )
    if answered:
        return warning("carrier", found, fix=fix)
    return wrong("carrier", f"it has answered no call; {found}", fix=fix)

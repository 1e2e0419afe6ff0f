"""Check the carrier: open shipments whose last call to it failed."""

from collections.abc import Iterator, Sequence

import msgspec

from todoku.diagnosis import CheckResult, ReadNewest, ok, warning, wrong

NEWEST = 200
CALLS_MIN = 2
"""One call without an answer is nothing unusual: it is repeated."""

ERROR_CHARACTERS_MAX = 200


class CheckedShipment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of a shipment that shows how the carrier answers."""

    id: str
    attempts: int
    tracking_number: str | None = None
    reason: str | None = None
    last_error: str | None = None


_decode = msgspec.json.Decoder(CheckedShipment).decode


def check_carrier(read_newest: ReadNewest) -> Iterator[CheckResult]:
    """Check the newest shipments."""
    yield summary([_decode(raw) for raw in read_newest("/shipments", NEWEST)])


def summary(shipments: Sequence[CheckedShipment]) -> CheckResult:
    """Return whether the carrier accepts or rejects these shipments, the newest first."""
    waiting = [each for each in shipments if each.last_error and each.attempts >= CALLS_MIN]
    answered = [
        each for each in shipments if (each.tracking_number or each.reason) and not each.last_error
    ]
    if not waiting:
        return ok(
            "carrier", f"no shipment waits for an answer; {_shipments(len(answered))} answered"
        )
    example = waiting[0]
    error = (example.last_error or "")[:ERROR_CHARACTERS_MAX]
    found = f"{_shipments(len(waiting), 'open ')} without an answer after several calls: {error}"
    fix = (
        "check that the carrier is reachable, and the log of shipping (`carrier_call_failed`);"
        f" `todoku shipment show {example.id}` shows the next call"
    )
    if answered:
        return warning("carrier", found, fix=fix)
    return wrong("carrier", f"it has answered no call; {found}", fix=fix)


def _shipments(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}shipment{'' if count == 1 else 's'}"

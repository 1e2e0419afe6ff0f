"""Check the carrier: open shipments whose last call to it failed, or that it has not answered for seconds."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from todoku.diagnosis import CheckResult, ReadNewest, ok, warning, wrong
from todoku.shipping.carriers import CALL_SECONDS_MAX
from todoku.shipping.domain import ShipmentStatus

NEWEST = 200
CALLS_MIN = 2
"""One call without an answer is nothing unusual: it is repeated."""

SLOW = timedelta(seconds=3)
"""Carriers that work answer sooner."""

ERROR_CHARACTERS_MAX = 200


class CheckedShipment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The part of a shipment that shows how the carrier answers."""

    id: str
    status: str
    attempts: int
    updated_at: datetime
    tracking_number: str | None = None
    reason: str | None = None
    last_error: str | None = None


_decode = msgspec.json.Decoder(CheckedShipment).decode


def _utc_now() -> datetime:
    return datetime.now(UTC)


def check_carrier(
    read_newest: ReadNewest, now: Callable[[], datetime] = _utc_now
) -> Iterator[CheckResult]:
    """Check the newest shipments."""
    shipments = [_decode(raw) for raw in read_newest("/shipments", NEWEST)]
    yield summary(shipments, now())


def summary(shipments: Sequence[CheckedShipment], now: datetime) -> CheckResult:
    """Return whether the carrier accepts or rejects these shipments, the newest first."""
    waiting = [each for each in shipments if each.last_error and each.attempts >= CALLS_MIN]
    answered = [
        each for each in shipments if (each.tracking_number or each.reason) and not each.last_error
    ]
    called_at = [each.updated_at for each in shipments if each.status == ShipmentStatus.BOOKING]
    if not waiting and called_at and now - min(called_at) > SLOW:
        return warning(
            "carrier",
            f"it is slow: it is being called for {_shipments(len(called_at))}, and has not answered one call"
            f" for {(now - min(called_at)).total_seconds():.0f} s",
            fix=f"ask the carrier; a call is given up after {CALL_SECONDS_MAX:g} s and repeated with the"
            " same key",
        )
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

"""The check of the carrier in `todoku doctor`."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from todoku.diagnosis import CheckStatus
from todoku.shipping.checks import NEWEST, CheckedShipment, check_carrier

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def shipment(
    *,
    attempts: int = 2,
    tracking_number: str | None = None,
    last_error: str | None = None,
    called_for_seconds: float | None = None,
) -> CheckedShipment:
    return CheckedShipment(
        id="s",
        status="COMPLETED" if called_for_seconds is None else "BOOKING",
        attempts=attempts,
        updated_at=NOW - timedelta(seconds=called_for_seconds or 0),
        tracking_number=tracking_number,
        reason=last_error,
        last_error=last_error,
    )


WAITING = shipment(last_error="ConnectionRefusedError: [Errno 111]")
BOOKED = shipment(tracking_number="SIM-1")


@pytest.mark.parametrize(
    ("shipments", "status", "found"),
    [
        ([], CheckStatus.OK, "no shipment waits"),
        ([BOOKED], CheckStatus.OK, "1 shipment answered"),
        ([shipment(attempts=1, last_error="timeout")], CheckStatus.OK, "no shipment waits"),
        ([shipment(called_for_seconds=1)], CheckStatus.OK, "no shipment waits"),
        (
            [shipment(called_for_seconds=1), shipment(called_for_seconds=7), BOOKED],
            CheckStatus.WARNING,
            "it is slow: it is being called for 2 shipments, and has not answered one call for 7 s",
        ),
        ([WAITING, BOOKED], CheckStatus.WARNING, "1 open shipment without an answer"),
        ([WAITING, WAITING], CheckStatus.WRONG, "it has answered no call; 2 open shipments"),
    ],
)
def test_carrier_without_answers_is_reported_with_its_last_error(
    shipments: list[CheckedShipment], status: CheckStatus, found: str
) -> None:
    asked = []

    def read_newest(path: str, items_max: int) -> object:
        asked.append((path, items_max))
        return iter([msgspec.json.encode(each) for each in shipments])

    [result] = check_carrier(read_newest, lambda: NOW)  # type: ignore[arg-type]

    assert asked == [("/shipments", NEWEST)]
    assert result.verdict is status
    assert found in result.found
    if "slow" in found:
        assert "9 s" in result.fix
    elif status is not CheckStatus.OK:
        assert "ConnectionRefusedError" in result.found
        assert "todoku shipment show s" in result.fix

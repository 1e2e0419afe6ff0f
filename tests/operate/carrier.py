"""A carrier that a file tells how to answer, in a shipping service that a file gives a bug."""

import asyncio
import os
from pathlib import Path
from typing import Final

from todoku.settings import Settings
from todoku.shipping import carriers
from todoku.shipping.domain import Accepted, Answer, Parcel

VARIABLE: Final = "TODOKU_OPERATE_CARRIER"
"""Names the file, which has one of the words below."""

ACCEPTS: Final = "accepts"
RAISES: Final = "raises"
IS_SLOW: Final = "is slow"
HAS_BUG: Final = "the decision before the call raises"
SLOW_SECONDS: Final = 7.0


class ChangeableCarrier:
    """Accepts each parcel, at once or slowly, or raises an error."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def book(self, key: str, parcel: Parcel) -> Answer:
        behaviour = self._file.read_text(encoding="utf-8")
        if behaviour == RAISES:
            raise KeyError("token")
        if behaviour == IS_SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        return Accepted(f"TRACK-{key[:8]}")


def carrier(settings: Settings) -> ChangeableCarrier:
    """Return the carrier, as the setting `carrier` names it."""
    file = Path(os.environ[VARIABLE])
    plant_bug(file)
    return ChangeableCarrier(file)


def plant_bug(file: Path) -> None:
    """Let the decision that opens a shipment divide by zero while the file says so."""
    fraction = carriers.fraction

    def fraction_or_error(text: str) -> float:
        return fraction(text) / (file.read_text(encoding="utf-8") != HAS_BUG)

    carriers.fraction = fraction_or_error

"""A carrier that a file tells how to answer."""

import asyncio
import os
from pathlib import Path
from typing import Final

from todoku.settings import Settings
from todoku.shipping.domain import Accepted, Answer, Parcel

VARIABLE: Final = "TODOKU_OPERATE_CARRIER"
"""Names the file, which has one of the words below."""

ACCEPTS: Final = "accepts"
RAISES: Final = "raises"
IS_SLOW: Final = "is slow"
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
    return ChangeableCarrier(Path(os.environ[VARIABLE]))

"""A carrier that takes six seconds and then fails."""

import asyncio
from typing import NoReturn

from todoku.settings import Settings
from todoku.shipping.domain import Parcel

SECONDS = 6.0


class FailingCarrier:
    """Never has an answer."""

    async def book(self, key: str, parcel: Parcel) -> NoReturn:
        await asyncio.sleep(SECONDS)
        raise ConnectionError("the carrier does not answer")


def failing(settings: Settings) -> FailingCarrier:
    """Return the carrier, as the setting `carrier` names it."""
    return FailingCarrier()

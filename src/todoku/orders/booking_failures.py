"""Define what an order keeps of a parcel that the carrier has neither accepted nor rejected yet."""

from datetime import datetime

import msgspec


class BookingFailure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The last failed attempt to book the parcel that shipping has published: how many there were until
    then, the error, when (UTC) the next one is due, and when this was recorded here."""

    attempts: int
    error: str
    next_attempt_at: datetime
    noted_at: datetime

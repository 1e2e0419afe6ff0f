"""Define the events about the holds of an order. While a hold is open, shipping books nothing for it."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from todoku.contracts.order_event import OrderEvent
from todoku.events import Personal

Instant = Annotated[datetime, msgspec.Meta(tz=True)]


class PlacedHold(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A hold that was in the request that placed the order; `expires_at` (UTC) is absent if it does not
    expire."""

    hold_id: str
    holder: str
    reason: str
    expires_at: Instant | UnsetType = UNSET


def holds_of(event: object) -> tuple[PlacedHold, ...]:
    """Return the holds that came with an order, as far as this event passes them on."""
    found = getattr(event, "holds", UNSET)
    return () if found is UNSET else found


class HoldEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """Something about the hold `hold_id` of an order: `holder` holds it because of `reason`.

    All of these events have all of this, so that any of them may arrive first.
    """

    hold_id: str
    holder: str
    reason: str

    @property
    def fact(self) -> str:
        """Return the name of the fact: an order may have several holds."""
        return f"{type(self).__name__} {self.hold_id}"


class HoldRequestedEvent(HoldEvent, frozen=True, kw_only=True, rename="camel"):
    """An order is to be held; shipping decides whether that is still possible.

    Orders releases the hold at `expires_at` (UTC), None if never. `with_order` says that it was in the
    request that placed the order: it is never too late. `requested_by` is who asked for it, None if that
    is unknown.
    """

    subject: ClassVar[str] = "orders.hold_requested"
    publisher: ClassVar[str] = "orders"

    expires_at: Instant | None = None
    with_order: bool = False
    requested_by: Annotated[str | None, Personal] = None


class HoldOutcome(StrEnum):
    """Why a hold no longer holds its order."""

    RELEASED = "RELEASED"
    EXPIRED = "EXPIRED"


class HoldReleasedEvent(HoldEvent, frozen=True, kw_only=True, rename="camel"):
    """A hold no longer holds its order.

    `outcome` is `RELEASED` or `EXPIRED` (`HoldOutcome`); later versions may add others. The holds of an
    order that has ended get no such event. `with_order` is that of the request; `released_by` is who
    released it, None if that is unknown.
    """

    subject: ClassVar[str] = "orders.hold_released"
    publisher: ClassVar[str] = "orders"

    outcome: str
    with_order: bool = False
    released_by: Annotated[str | None, Personal] = None


class HoldConfirmedEvent(HoldEvent, frozen=True, kw_only=True, rename="camel"):
    """The carrier is not called for the order while this hold is open."""

    subject: ClassVar[str] = "shipping.hold_confirmed"
    publisher: ClassVar[str] = "shipping"


class HoldRefusedEvent(HoldEvent, frozen=True, kw_only=True, rename="camel"):
    """It is too late to hold the order: the call to the carrier was claimed. `refusal` says so in words."""

    subject: ClassVar[str] = "shipping.hold_refused"
    publisher: ClassVar[str] = "shipping"

    refusal: str = ""

"""Record which messages about an order are parked at other services: pure functions."""

from datetime import datetime

import msgspec

from todoku.contracts import Event, ParkingEvent


class ParkedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter of `service` about an order: parked at `parked_at` (UTC), `closed` once resolved.
    `error` is the class of the exception."""

    service: str
    letter_id: str
    order_id: str
    message_type: str
    error: str
    parked_at: datetime
    closed: bool = False


def note_parked(
    message: ParkedMessage | None, event: ParkingEvent, now: datetime
) -> tuple[ParkedMessage, list[Event]]:
    """Record a dead letter of another service about an order. Late if it is already recorded."""
    if message is not None:
        return message, []
    return _parked_message(event), []


def note_resolved(
    message: ParkedMessage | None, event: ParkingEvent, now: datetime
) -> tuple[ParkedMessage, list[Event]]:
    """Record that a dead letter is resolved; this event may arrive before the one that it was parked."""
    return msgspec.structs.replace(message or _parked_message(event), closed=True), []


def _parked_message(event: ParkingEvent) -> ParkedMessage:
    return ParkedMessage(
        service=event.publisher,
        letter_id=event.letter_id,
        order_id=event.order_id,
        message_type=event.message_type,
        error=event.error,
        parked_at=event.parked_at,
    )

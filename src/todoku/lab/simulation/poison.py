"""Makes messages that cannot be processed: each must be parked, and must not affect others."""

from collections.abc import Sequence
from random import Random
from uuid import UUID

import msgspec

from todoku.broker.port import Outgoing
from todoku.contracts import (
    Envelope,
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    encode,
    seal,
)
from todoku.engine import Topology
from todoku.engine.tables import PendingDelivery
from todoku.lab.simulation.loop import START


def make_message(dice: Random, events: Sequence[type[Event]]) -> Outgoing:
    """Return a message on the subject of one of these events that cannot be processed."""
    break_it = dice.choice((_garbage, _unknown_type, _missing_data, _stranger, _refused))
    return break_it(dice, dice.choice(events))


def make_outbox_row(
    dice: Random, topology: Topology, events: Sequence[type[Event]]
) -> PendingDelivery:
    """Return an outbox row of a newer version of a publisher that no subscriber can decode."""
    event = dice.choice(events)
    break_it = dice.choice((_unknown_type, _missing_data))
    message = break_it(dice, event)
    event_id = msgspec.json.decode(message.body)["id"]
    return PendingDelivery(event_id, message.subject, message.body, topology.readers(event))


def _garbage(dice: Random, event: type[Event]) -> Outgoing:
    return Outgoing(event.subject, dice.randbytes(20))


def _unknown_type(dice: Random, event: type[Event]) -> Outgoing:
    return Outgoing(event.subject, encode(_envelope(dice, event, type="LoyaltyPointsEarnedEvent")))


def _missing_data(dice: Random, event: type[Event]) -> Outgoing:
    return Outgoing(event.subject, encode(_envelope(dice, event, type=event.__name__)))


def _stranger(dice: Random, _: type[Event]) -> Outgoing:
    """Return the end of a shipment of an order that does not exist."""
    order_id = _draw_id(dice)
    event: Event
    if dice.random() < 0.5:
        event = ShipmentCompletedEvent(
            order_id=order_id, shipment_id=_draw_id(dice), tracking_number="T", items=()
        )
    else:
        event = ShipmentFailedEvent(
            order_id=order_id, shipment_id=_draw_id(dice), reason="lost", items=()
        )
    return Outgoing(event.subject, encode(seal(event, START)))


def _refused(dice: Random, _: type[Event]) -> Outgoing:
    """Return an order that the tables of inventory refuse."""
    item = OrderedItem(product_id="prod0", quantity=2**63, price=100)
    event = OrderCreatedEvent(
        order_id=_draw_id(dice), user_id="nobody", items=(item,), total_amount=1
    )
    return Outgoing(event.subject, encode(seal(event, START)))


def _envelope(dice: Random, event: type[Event], *, type: str) -> Envelope:
    order_id = _draw_id(dice)
    return Envelope(
        specversion="1.0",
        id=_draw_id(dice),
        source=event.publisher,
        type=type,
        subject=order_id,
        time=START,
        data=msgspec.Raw(b'{"orderId":"%s"}' % order_id.encode()),
    )


def _draw_id(dice: Random) -> str:
    return str(UUID(int=dice.getrandbits(128), version=4))

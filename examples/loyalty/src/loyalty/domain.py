"""Decide how many points an order is worth. Pure: values in, values out."""

import msgspec

from todoku.contracts import OrderCompletedEvent


class Award(msgspec.Struct, frozen=True, kw_only=True):
    """The points for one order: an order completes once, and its id is the key."""

    order_id: str
    user_id: str
    points: int


def award_points(
    award: Award | None, event: OrderCompletedEvent, _: object
) -> tuple[Award, list[object]]:
    """Give one point for each 100 minor units."""
    points = event.total_amount // 100
    return award or Award(order_id=event.order_id, user_id=event.user_id, points=points), []

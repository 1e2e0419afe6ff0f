"""How an order is kept as the answer to a command: as what may change in it, beside its row."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from todoku.engine import AnswerFormat
from todoku.orders.domain import Order
from todoku.orders.store import find_order

UNCHANGING: Final = frozenset(
    {"user_id", "items", "total_amount", "currency", "shipping_address", "created_at"}
)
"""What an order keeps from its acceptance on: up to 1,000 items, and all that is personal."""


def _keep(order: Order) -> dict[str, Any]:
    """Return what may change later, as it is now."""
    values = {name: getattr(order, name) for name in Order.__struct_fields__}
    return {
        name: value
        for name, value in values.items()
        if name not in UNCHANGING and value is not None
    }


def _rebuild(connection: Connection, kept: dict[str, Any]) -> Order | None:
    """Return the order as it was; None if it no longer exists."""
    order = find_order(connection, kept["id"])
    if order is None:
        return None
    unchanging = {name: getattr(order, name) for name in UNCHANGING}
    return msgspec.convert({**msgspec.to_builtins(unchanging), **kept}, Order)


ANSWERS: Final[Mapping[type, AnswerFormat]] = {Order: AnswerFormat(keep=_keep, rebuild=_rebuild)}

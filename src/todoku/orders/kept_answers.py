"""How an order is kept as the answer to a command: as what may change in it, beside its row."""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, get_type_hints

import msgspec
from sqlalchemy import Connection

from todoku.engine import AnswerFormat
from todoku.orders.domain import Order
from todoku.orders.store import find_order

UNCHANGING: Final = frozenset(
    {"user_id", "items", "total_amount", "currency", "shipping_address", "created_at"}
)
"""What an order keeps from its acceptance on: up to 1,000 items, and all that is personal."""

CHANGING: Final = tuple(name for name in Order.__struct_fields__ if name not in UNCHANGING)

_hints = get_type_hints(Order)
_defaults = {field.name: field.default for field in msgspec.structs.fields(Order)}
_KeptOrder: Final = msgspec.defstruct(
    "_KeptOrder",
    [
        (name, _hints[name])
        if _defaults[name] is msgspec.NODEFAULT
        else (name, _hints[name], _defaults[name])
        for name in CHANGING
    ],
    frozen=True,
    omit_defaults=True,
)
_values = attrgetter(*CHANGING)


def _keep(order: Order) -> msgspec.Struct:
    """Return what may change later, as it is now."""
    return _KeptOrder(*_values(order))


def _rebuild(connection: Connection, kept: dict[str, Any]) -> Order | None:
    """Return the order as it was; None if it no longer exists."""
    order = find_order(connection, kept["id"])
    if order is None:
        return None
    changed = msgspec.structs.asdict(msgspec.convert(kept, _KeptOrder))
    return msgspec.structs.replace(order, **changed)


ANSWERS: Final[Mapping[type, AnswerFormat]] = {Order: AnswerFormat(keep=_keep, rebuild=_rebuild)}

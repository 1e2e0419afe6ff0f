"""How an order is kept as the answer to a command: as what may change in it, beside its row."""

from collections.abc import Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, Final, get_type_hints

import msgspec
from sqlalchemy import Connection

from todoku.engine import AnswerFormat
from todoku.orders.changes import Change, ChangeState
from todoku.orders.domain import Order
from todoku.orders.holds import Hold, HoldState
from todoku.orders.store import find_order

UNCHANGING: Final = frozenset(
    {
        "user_id",
        "items",
        "total_amount",
        "currency",
        "shipping_address",
        "created_at",
        "deadline",
        "on_shortage",
    }
)
"""What an order keeps from its acceptance on: up to 1,000 items, and all that is personal."""


class KeptChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may change in a change that was requested."""

    id: str
    state: ChangeState
    decided_at: datetime | None = None
    refusal: str | None = None


class KeptHold(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may change in a hold, except for who released it: that is a person, and stays with the order."""

    id: str
    state: HoldState
    decided_at: datetime | None = None
    refusal: str | None = None
    released_at: datetime | None = None


CHANGING: Final = tuple(
    field.name
    for field in msgspec.structs.fields(Order)
    if field.name not in UNCHANGING and field.name not in ("changes", "holds")
)

_hints = get_type_hints(Order)
_defaults = {field.name: field.default for field in msgspec.structs.fields(Order)}
_values = attrgetter(*CHANGING)

KeptOrder: Final = msgspec.defstruct(
    "KeptOrder",
    [
        (name, _hints[name])
        if _defaults[name] is msgspec.NODEFAULT
        else (name, _hints[name], _defaults[name])
        for name in CHANGING
    ]
    + [("changes", tuple[KeptChange, ...], ()), ("holds", tuple[KeptHold, ...], ())],
    frozen=True,
    omit_defaults=True,
)
"""What may change in an order: all of its fields that are not `UNCHANGING`."""


def keep(order: Order) -> msgspec.Struct:
    """Return what may change later, as it is now."""
    if not order.changes and not order.holds:
        return KeptOrder(*_values(order))
    changes = tuple(
        KeptChange(change.id, change.state, change.decided_at, change.refusal)
        for change in order.changes
    )
    holds = tuple(
        KeptHold(hold.id, hold.state, hold.decided_at, hold.refusal, hold.released_at)
        for hold in order.holds
    )
    return KeptOrder(*_values(order), changes, holds)


def rebuild(connection: Connection, kept: dict[str, Any]) -> Order | None:
    """Return the order as it was; None if it no longer exists."""
    order = find_order(connection, kept["id"])
    if order is None:
        return None
    was = msgspec.structs.asdict(msgspec.convert(kept, KeptOrder))
    changes = {change.id: change for change in order.changes}
    was["changes"] = tuple(_as_it_was(changes[each.id], each) for each in was["changes"])
    holds = {hold.id: hold for hold in order.holds}
    was["holds"] = tuple(_hold_as_it_was(holds[each.id], each) for each in was["holds"])
    return msgspec.structs.replace(order, **was)


def _as_it_was(change: Change, kept: KeptChange) -> Change:
    return msgspec.structs.replace(
        change, state=kept.state, decided_at=kept.decided_at, refusal=kept.refusal
    )


def _hold_as_it_was(hold: Hold, kept: KeptHold) -> Hold:
    return msgspec.structs.replace(
        hold,
        state=kept.state,
        decided_at=kept.decided_at,
        refusal=kept.refusal,
        released_at=kept.released_at,
        released_by=None if kept.released_at is None else hold.released_by,
    )


ANSWERS: Final[Mapping[type, AnswerFormat]] = {Order: AnswerFormat(keep=keep, rebuild=rebuild)}

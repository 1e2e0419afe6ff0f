"""What orders contributes to the export and the erasure of a person: it knows which orders are whose."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from todoku.contracts.persons import PersonErasedEvent
from todoku.database import Many, among
from todoku.engine import ERASED, IsPerson, OpenWork, Owner, Persons, rows_about, scrubbed
from todoku.orders.domain import ORDER
from todoku.orders.store import order_events, order_items, orders, parked_messages

_letters = orders.metadata.tables["dead_letters"]
_ended: Final = tuple(status.value for status in ORDER.terminal)
_blank = Many(
    update(orders)
    .where(orders.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in ("user_id", "shipping_address", "changes", "holds")})
)
_rewrite = Many(
    update(order_events)
    .where(
        order_events.c.order_id == bindparam("of_order"),
        order_events.c.event_id == bindparam("the_event"),
    )
    .values(data=bindparam("new_data"), actor=bindparam("new_actor"))
)


def orders_of(connection: Connection, person: str) -> Sequence[str]:
    """Return the ids of all orders of a person."""
    found = select(orders.c.id).where(orders.c.user_id == person).order_by(orders.c.id)
    return connection.scalars(found).all()


def open_work(connection: Connection, order_ids: Sequence[str]) -> OpenWork:
    """Return which of these orders have not ended, and the open dead letters about them, here and at other
    services."""
    parked = parked_messages.table
    open_orders = select(orders.c.id).where(
        among(orders.c.id, "ids"), orders.c.status.not_in(_ended)
    )
    here = select(_letters.c.id).where(
        among(_letters.c.order_id, "ids"), _letters.c.state == "PARKED"
    )
    elsewhere = select(parked.c.letter_id).where(
        among(parked.c.order_id, "ids"), parked.c.closed == 0
    )
    ids = {"ids": list(order_ids)}
    letters = [*connection.scalars(here, ids), *connection.scalars(elsewhere, ids)]
    return OpenWork(tuple(connection.scalars(open_orders, ids)), tuple(sorted(set(letters))))


def erase(connection: Connection, order_ids: Sequence[str], is_person: IsPerson) -> None:
    """Erase whose these orders were, where they went, and what their histories say about it."""
    ids = {"ids": list(order_ids)}
    _erase_orders(connection, ids, is_person)
    _erase_histories(connection, ids, is_person)


def _erase_orders(connection: Connection, ids: Mapping[str, Any], is_person: IsPerson) -> None:
    columns = orders.c
    found = select(columns.id, columns.changes, columns.holds).where(
        among(columns.id, "ids"), columns.user_id != ERASED
    )
    rows = [
        {
            "key": row.id,
            "user_id": ERASED,
            "shipping_address": "",
            "changes": scrubbed(row.changes, is_person),
            "holds": scrubbed(row.holds, is_person),
        }
        for row in connection.execute(found, ids).all()
    ]
    _blank(connection, rows)


def _erase_histories(connection: Connection, ids: Mapping[str, Any], is_person: IsPerson) -> None:
    columns = order_events.c
    found = select(columns.order_id, columns.event_id, columns.data, columns.actor).where(
        among(columns.order_id, "ids")
    )
    rows = [
        {
            "of_order": row.order_id,
            "the_event": row.event_id,
            "new_data": scrubbed(row.data, is_person),
            "new_actor": ERASED if is_person(row.actor) else row.actor,
        }
        for row in connection.execute(found, ids).all()
    ]
    _rewrite(connection, rows)


def export(connection: Connection, order_ids: Sequence[str]) -> Mapping[str, Any]:
    """Return everything that is stored about these orders."""
    parked = parked_messages.table
    return {
        "orders": rows_about(connection, orders, orders.c.id, order_ids),
        "order_items": rows_about(connection, order_items, order_items.c.order_id, order_ids),
        "order_events": rows_about(connection, order_events, order_events.c.order_id, order_ids),
        "parked_messages": rows_about(connection, parked, parked.c.order_id, order_ids),
    }


ORDERS_PERSONS: Final = Persons(
    erase=erase,
    export=export,
    owner=Owner(orders_of=orders_of, open_work=open_work, event=PersonErasedEvent),
)

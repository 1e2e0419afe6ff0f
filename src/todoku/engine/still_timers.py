"""Pushes the timers of an agenda after a pause, in which they stood still."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    case,
    func,
    select,
    type_coerce,
    update,
)

from todoku.database import Integer64, Timestamp, to_microseconds


def push_timers(
    connection: Connection,
    agenda: str,
    due_at: Column[Any],
    key: Column[str],
    timers: Table,
    since: datetime,
    until: datetime,
    *,
    where: Sequence[ColumnElement[bool]] = (),
    shared: bool,
) -> None:
    """Add the time from `since` to `until` to the due times of an agenda; to those of the `timers`, which
    were set in between, the rest of it. Only to rows of which all conditions in `where` hold.

    Where others may write, the rows are locked in key order first, as batches do, so that no two
    transactions wait for each other.
    """
    pushed = (due_at.is_not(None), *where)
    if shared:
        connection.execute(select(key).where(*pushed).order_by(key).with_for_update()).all()
    set_at = (
        select(type_coerce(timers.c.set_at, Integer64))
        .where(timers.c.agenda == agenda, timers.c.timer == key)
        .scalar_subquery()
    )
    began, ended = to_microseconds(since), to_microseconds(until)
    start = func.coalesce(set_at, began)
    still = case(
        (start <= began, ended - began),  # type: ignore[operator]  # neither is None
        (start < ended, ended - start),
        else_=0,
    )
    later = type_coerce(type_coerce(due_at, Integer64) + still, Timestamp)
    connection.execute(update(due_at.table).where(*pushed).values({due_at: later}))

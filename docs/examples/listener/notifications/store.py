"""The table of the notifications service."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Column, Connection, MetaData, Text, insert, select

from todoku.contracts import Envelope
from todoku.database import Timestamp, table
from todoku.engine import EngineTables, StateCache
from todoku.notifications.domain import Notification

metadata = MetaData()

notifications = table(
    "notifications",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("noted_at", Timestamp, nullable=False),
)


class NotificationsUnitOfWork:
    """The notifications that a batch touches, by order id."""

    def __init__(self, found: dict[str, Notification]) -> None:
        self.before = found
        self.after = dict(found)

    def view(self, subject: Any) -> Notification | None:
        return self.after.get(subject.order_id)

    def put(self, subject: Any, state: Notification) -> None:
        self.after[subject.order_id] = state

    def record(self, envelope: Envelope) -> None:
        """Do nothing: the notifications are the history of this service."""

    def fill_cache(self, cache: StateCache) -> None:
        """Do nothing: an order ends once, so no state is needed again soon."""


class NotificationsStore:
    """Loads and saves notifications, which never change."""

    metadata = metadata
    tables = EngineTables(metadata)

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> NotificationsUnitOfWork:
        ids = sorted({subject.order_id for subject in subjects})
        rows = connection.execute(select(notifications).where(notifications.c.order_id.in_(ids)))
        return NotificationsUnitOfWork({row.order_id: Notification(**row._mapping) for row in rows})

    def save(
        self, connection: Connection, unit_of_work: NotificationsUnitOfWork, now: datetime
    ) -> None:
        new = [note for key, note in unit_of_work.after.items() if key not in unit_of_work.before]
        if new:
            connection.execute(insert(notifications), [msgspec.structs.asdict(n) for n in new])


def find_notification(connection: Connection, order_id: str) -> Notification | None:
    """Return the notification about an order, or None."""
    row = connection.execute(
        select(notifications).where(notifications.c.order_id == order_id)
    ).first()
    return None if row is None else Notification(**row._mapping)

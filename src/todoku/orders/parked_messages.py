"""Define the table of dead letters about orders, at any service, and read it."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import CheckConstraint, Column, Connection, Index, MetaData, Text, select, text

from todoku.contracts import OrderCreatedEvent
from todoku.database import (
    Integer64,
    Many,
    Query,
    Timestamp,
    among,
    table,
    to_microseconds,
    upsert,
)
from todoku.engine import DeadLetters
from todoku.orders.parking import ParkedMessage


class ParkedMessages:
    """The dead letters that other services have published, by order. Resolved ones are kept too: that
    event may arrive before the one that the message was parked."""

    def __init__(self, metadata: MetaData) -> None:
        self.table = table(
            "parked_messages",
            metadata,
            Column("order_id", Text, primary_key=True),
            Column("service", Text, primary_key=True),
            Column("letter_id", Text, primary_key=True),
            Column("message_type", Text, nullable=False),
            Column("error", Text, nullable=False),
            Column("parked_at", Timestamp, nullable=False),
            Column("closed", Integer64, nullable=False),
            CheckConstraint("closed IN (0, 1)", name="closed_or_not"),
            Index(
                "parked_messages_open",
                "order_id",
                sqlite_where=text("closed = 0"),
                postgresql_where=text("closed = 0"),
            ),
            clustered=True,
        )
        about = select(self.table).where(among(self.table.c.order_id, "ids"))
        self._read = Query(about)
        self._load = Query(about.order_by(*self.table.primary_key).with_for_update())
        # Never opened again: another process may have closed it meanwhile, on the later event.
        key = ["order_id", "service", "letter_id"]
        self._save = Many(upsert(self.table, key, ["closed"], growing="closed"))

    def load(
        self, connection: Connection, order_ids: Collection[str]
    ) -> dict[tuple[str, str], ParkedMessage]:
        """Load and lock the messages about these orders, by service and letter."""
        if not order_ids:
            return {}
        messages = map(_message, self._load(connection, ids=sorted(order_ids)))
        return {(message.service, message.letter_id): message for message in messages}

    def save(self, connection: Connection, messages: Iterable[ParkedMessage]) -> None:
        """Write these messages."""
        self._save(connection, [_row(message) for message in messages])

    def open(
        self, connection: Connection, order_ids: Collection[str], letters: DeadLetters
    ) -> Mapping[str, list[ParkedMessage]]:
        """Return the unresolved messages about each of these orders, the oldest first: those of the
        other services, and those of this one in `letters`."""
        found = map(_message, self._read(connection, ids=sorted(order_ids)) if order_ids else ())
        waiting = [message for message in found if not message.closed]
        waiting += _own(connection, order_ids, letters)
        by_order: dict[str, list[ParkedMessage]] = {}
        for message in sorted(waiting, key=lambda message: message.parked_at):
            by_order.setdefault(message.order_id, []).append(message)
        return by_order


def _own(
    connection: Connection, order_ids: Collection[str], letters: DeadLetters
) -> Iterable[ParkedMessage]:
    for letter in letters.parked_about(connection, order_ids):
        assert letter.key is not None
        yield ParkedMessage(
            service=OrderCreatedEvent.publisher,
            letter_id=letter.id,
            order_id=letter.key,
            message_type=letter.event_type or "",
            error=letter.error_class,
            parked_at=letter.parked_at,
        )


def _message(row: Any) -> ParkedMessage:
    return ParkedMessage(**{**row._asdict(), "closed": bool(row.closed)})


def _row(message: ParkedMessage) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(message),
        "parked_at": to_microseconds(message.parked_at),
        "closed": int(message.closed),
    }

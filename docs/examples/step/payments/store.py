"""The table of the payments service."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    MetaData,
    Text,
    bindparam,
    insert,
    select,
    update,
)

from todoku.contracts import Envelope
from todoku.database import Integer64, Timestamp, table
from todoku.engine import EngineTables, StateCache
from todoku.payments.domain import PAYMENT, Payment, PaymentStatus

metadata = MetaData()

payments = table(
    "payments",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("amount", Integer64, nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    CheckConstraint("amount BETWEEN 1 AND 9007199254740991", name="amount_exact"),
    CheckConstraint(PAYMENT.check("status"), name="status_known"),
)

_load = (
    select(payments)
    .where(payments.c.order_id.in_(bindparam("ids", expanding=True)))
    .order_by(payments.c.order_id)
    .with_for_update()
)
_update = (
    update(payments)
    .where(payments.c.order_id == bindparam("key"))
    .values(status=bindparam("status"), updated_at=bindparam("updated_at"))
)


class PaymentsUnitOfWork:
    """The payments that a batch touches, by order id."""

    def __init__(self, found: dict[str, Payment]) -> None:
        self.before = found
        self.after = dict(found)

    def view(self, subject: Any) -> Payment | None:
        return self.after.get(subject.order_id)

    def put(self, subject: Any, state: Payment) -> None:
        self.after[subject.order_id] = state

    def record(self, envelope: Envelope) -> None:
        """Do nothing: the payments are the history of this service."""

    def fill_cache(self, cache: StateCache) -> None:
        cache.put("payments", self.after)


class PaymentsStore:
    """Loads and saves payments in at most three statements per batch."""

    metadata = metadata
    tables = EngineTables(metadata)

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> PaymentsUnitOfWork:
        ids = {subject.order_id for subject in subjects}
        found = cache.get("payments", ids)
        if missing := sorted(ids - found.keys()):
            rows = connection.execute(_load, {"ids": missing})
            found |= {row.order_id: _payment(row) for row in rows}
        return PaymentsUnitOfWork(found)

    def save(self, connection: Connection, unit_of_work: PaymentsUnitOfWork, now: datetime) -> None:
        changed = [
            it for key, it in unit_of_work.after.items() if it is not unit_of_work.before.get(key)
        ]
        new = [_row(it) for it in changed if it.order_id not in unit_of_work.before]
        old = [
            {"key": it.order_id, **_row(it)} for it in changed if it.order_id in unit_of_work.before
        ]
        if new:
            connection.execute(insert(payments), new)
        if old:
            connection.execute(_update, old)


def find_payment(connection: Connection, order_id: str) -> Payment | None:
    """Return the payment for an order, or None."""
    row = connection.execute(select(payments).where(payments.c.order_id == order_id)).first()
    return None if row is None else _payment(row)


def _payment(row: Any) -> Payment:
    return Payment(**{**row._mapping, "status": PaymentStatus(row.status)})


def _row(payment: Payment) -> dict[str, Any]:
    return msgspec.structs.asdict(payment) | {"status": payment.status.value}

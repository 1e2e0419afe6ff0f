"""The table of the payments service."""

from sqlalchemy import CheckConstraint, Column, MetaData, Text

from todoku.database import Integer64, Timestamp, table
from todoku.engine import KeyedStore
from todoku.payments.domain import PAYMENT, Payment

metadata = MetaData()

payments = table(
    "payments",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("amount", Integer64, nullable=False),
    Column("currency", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    CheckConstraint("amount BETWEEN 0 AND 9007199254740991", name="amount_exact"),
    CheckConstraint(PAYMENT.check("status"), name="status_known"),
)

store = KeyedStore(Payment, payments, key="order_id")

"""A service in miniature, with tables in two versions, for the tests of the database layer."""

from sqlalchemy import CheckConstraint, Column, ForeignKey, MetaData, Text

from todoku.database import Integer64, Timestamp, table

METADATA = MetaData()

ACCOUNTS = table(
    "accounts",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("balance", Integer64, nullable=False),
    Column("opened_at", Timestamp),
    Column("note", Text),
    CheckConstraint("balance >= 0", name="balance_not_negative"),
    clustered=True,
)

ENTRIES = table(
    "entries",
    METADATA,
    Column("id", Integer64, primary_key=True),
    Column("account", Text, ForeignKey("accounts.name", ondelete="CASCADE"), nullable=False),
    Column("amount", Integer64, nullable=False),
)

"""Accounts and their entries."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("balance", Integer64),
        sa.Column("opened_at", Integer64),
        sa.CheckConstraint("balance >= 0", name="balance_not_negative"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "entries",
        sa.Column("id", Integer64, primary_key=True),
        sa.Column(
            "account",
            sa.Text,
            sa.ForeignKey("accounts.name", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("amount", Integer64, nullable=False),
        sqlite_strict=True,
    )

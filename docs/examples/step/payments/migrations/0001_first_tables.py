"""Create the payments table and the engine's tables."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_engine_tables


def upgrade() -> None:
    op.create_table(
        "payments",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("amount", Integer64, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.CheckConstraint("amount BETWEEN 0 AND 9007199254740991", name="amount_exact"),
        sa.CheckConstraint(
            "status IN ('AUTHORIZED', 'DECLINED', 'CAPTURED', 'RELEASED')", name="status_known"
        ),
        sqlite_strict=True,
    )
    create_engine_tables()

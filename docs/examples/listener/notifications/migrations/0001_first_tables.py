"""Create the notifications table and the engine's tables."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp
from todoku.engine.revisions import create_engine_tables


def upgrade() -> None:
    op.create_table(
        "notifications",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("noted_at", Timestamp, nullable=False),
        sqlite_strict=True,
    )
    create_engine_tables()

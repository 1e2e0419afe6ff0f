"""Awards; the engine's tables."""

import sqlalchemy as sa

from todoku.database import Integer64
from todoku.engine.revisions import create_engine_tables, create_table


def upgrade() -> None:
    create_table(
        "awards",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False, index=True),
        sa.Column("points", Integer64, nullable=False),
    )
    create_engine_tables()

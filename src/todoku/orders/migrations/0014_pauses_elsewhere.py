"""Orders knows what is paused at the other services."""

import sqlalchemy as sa

from todoku.database import Integer64
from todoku.engine.revisions import create_table


def upgrade() -> None:
    create_table(
        "pauses_elsewhere",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("version", Integer64, nullable=False),
        sa.Column("pauses", sa.Text, nullable=False),
    )

"""Of two changes of a threshold of low stock, the one with the higher version counts."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64


def upgrade() -> None:
    op.add_column(
        "products",
        sa.Column("threshold_version", Integer64, nullable=False, server_default="0"),
    )

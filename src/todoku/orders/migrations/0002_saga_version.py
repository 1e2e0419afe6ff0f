"""An order keeps the version of the saga in which it began."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64


def upgrade() -> None:
    op.add_column(
        "orders", sa.Column("saga_version", Integer64, nullable=False, server_default="1")
    )

"""Staff are told when few pieces of a product are available."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64


def upgrade() -> None:
    op.add_column("products", sa.Column("low_stock_threshold", Integer64))

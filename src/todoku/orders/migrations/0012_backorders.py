"""An order may wait for stock that is missing, and shows since when."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp


def upgrade() -> None:
    op.add_column("orders", sa.Column("on_shortage", sa.Text))
    op.add_column("orders", sa.Column("stock_awaited_at", Timestamp))

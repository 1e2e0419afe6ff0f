"""An order has a deadline. Orders from before have none."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp


def upgrade() -> None:
    op.add_column("orders", sa.Column("deadline", Timestamp))
    op.add_column("orders", sa.Column("due_at", Timestamp))
    op.create_index(
        "orders_due",
        "orders",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )

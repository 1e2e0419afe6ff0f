"""An order may be held: it keeps its holds, since when it is held, and when the next hold expires."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp


def upgrade() -> None:
    op.add_column("orders", sa.Column("holds", sa.Text))
    op.add_column("orders", sa.Column("held_since", Timestamp))
    op.add_column("orders", sa.Column("hold_expires_at", Timestamp))
    for name, column, present in (
        ("orders_held", "id", "held_since"),
        ("orders_hold_expiries", "hold_expires_at", "hold_expires_at"),
    ):
        op.create_index(
            name,
            "orders",
            [column],
            sqlite_where=sa.text(f"{present} IS NOT NULL"),
            postgresql_where=sa.text(f"{present} IS NOT NULL"),
        )

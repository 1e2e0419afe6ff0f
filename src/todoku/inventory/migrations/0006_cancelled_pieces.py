"""Pieces of a line may be cancelled, also before the order arrives."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64


def upgrade() -> None:
    with op.batch_alter_table("reservations") as reservations:
        reservations.add_column(
            sa.Column("cancelled", Integer64, nullable=False, server_default="0")
        )
        reservations.create_check_constraint(
            "cancelled_of_quantity", "cancelled BETWEEN 0 AND quantity"
        )
        reservations.drop_constraint("state_known", type_="check")
        reservations.create_check_constraint(
            "state_known",
            "state IN ('RESERVED', 'REFUSED', 'EXPECTED', 'SHIPPED', 'RELEASED', 'CANCELLED')",
        )

"""A shipment may be held: it is open, and does not fall due."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("shipments") as shipments:
        shipments.add_column(sa.Column("holds", sa.Text))
        shipments.drop_constraint("unfinished_falls_due", type_="check")
        shipments.create_check_constraint(
            "unfinished_falls_due",
            "(status IN ('INITIATED', 'BOOKING')) = (due_at IS NOT NULL) "
            "OR (status = 'INITIATED' AND holds IS NOT NULL)",
        )

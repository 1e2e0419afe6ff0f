"""A shipment may be cancelled before the carrier is called, also before its order is known here."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("shipments") as shipments:
        shipments.add_column(sa.Column("changes", sa.Text))
        shipments.drop_constraint("status_known", type_="check")
        shipments.create_check_constraint(
            "status_known",
            "status IN ('INITIATED', 'EXPECTED', 'BOOKING', 'COMPLETED', 'FAILED', 'CANCELLED')",
        )
        shipments.drop_constraint("unfinished_falls_due", type_="check")
        shipments.create_check_constraint(
            "unfinished_falls_due",
            "(status IN ('INITIATED', 'BOOKING')) = (due_at IS NOT NULL)",
        )

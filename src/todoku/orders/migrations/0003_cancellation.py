"""An order may be cancelled; it keeps what was asked to be cancelled, and what was decided."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("orders") as orders:
        orders.add_column(sa.Column("changes", sa.Text))
        orders.drop_constraint("status_known", type_="check")
        orders.create_check_constraint(
            "status_known",
            "status IN ('PENDING', 'AWAITING_SHIPMENT', 'COMPLETED', 'CANCELLED_NO_STOCK', "
            "'CANCELLING', 'CANCELLED', 'SHIPMENT_FAILED')",
        )

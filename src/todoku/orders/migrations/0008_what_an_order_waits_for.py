"""An order keeps since when it is in its status, and the last failed attempt to book its parcel. Open
orders from before deadlines are due, so that they get one."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp


def upgrade() -> None:
    op.add_column("orders", sa.Column("status_since", Timestamp))
    op.add_column("orders", sa.Column("booking_failure", sa.Text))
    op.execute(
        "UPDATE orders SET due_at = 0 WHERE due_at IS NULL AND deadline IS NULL "
        "AND status IN ('PENDING', 'AWAITING_SHIPMENT')"
    )

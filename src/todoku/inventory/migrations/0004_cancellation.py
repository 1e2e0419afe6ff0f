"""Stock may be released because the order is cancelled, or never be reserved because it was before."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("reservations") as reservations:
        reservations.add_column(sa.Column("changes", sa.Text))
        reservations.drop_constraint("state_known", type_="check")
        reservations.create_check_constraint(
            "state_known",
            "state IN ('RESERVED', 'REFUSED', 'SHIPPED', 'RELEASED', 'CANCELLED')",
        )

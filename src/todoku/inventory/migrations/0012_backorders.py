"""Orders may wait for stock, in the queues of their products."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp
from todoku.engine.revisions import create_table


def upgrade() -> None:
    op.add_column("products", sa.Column("queue", sa.Text))
    with op.batch_alter_table("reservations") as reservations:
        reservations.add_column(sa.Column("queued_at", Timestamp))
        reservations.add_column(sa.Column("context", sa.Text))
        reservations.drop_constraint("state_known", type_="check")
        reservations.create_check_constraint(
            "state_known",
            "state IN ('RESERVED', 'REFUSED', 'EXPECTED', 'WAITING', 'SHIPPED', 'RELEASED', "
            "'CANCELLED')",
        )
    op.create_index(
        "reservations_waiting",
        "reservations",
        ["product_id", "queued_at", "order_id"],
        sqlite_where=sa.text("state = 'WAITING'"),
        postgresql_where=sa.text("state = 'WAITING'"),
    )
    create_table(
        "due_queues",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("due_at", Timestamp, nullable=False),
    )

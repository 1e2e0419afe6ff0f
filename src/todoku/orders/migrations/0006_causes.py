"""The history of an order tells which event led to an event."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.add_column("order_events", sa.Column("cause", sa.Text))

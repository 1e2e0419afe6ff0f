"""The history of an order tells which event led to an event."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("order_events", sa.Column("cause", sa.Text))

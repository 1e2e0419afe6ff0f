"""A reservation keeps the address that was said with it, so that it can be said again."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.add_column("reservations", sa.Column("shipping_address", sa.Text))

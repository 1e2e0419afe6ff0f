"""Shipments keep the context (actor and trace) of the request that led to them."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.add_column("shipments", sa.Column("context", sa.Text))

"""A reservation keeps the amount of its order, so that its event can be republished in full."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64


def upgrade() -> None:
    op.add_column("reservations", sa.Column("total_amount", Integer64))
    op.add_column("reservations", sa.Column("currency", sa.Text))

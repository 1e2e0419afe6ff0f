"""A reservation keeps the holds that came with its order, for shipping."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.add_column("reservations", sa.Column("holds", sa.Text))

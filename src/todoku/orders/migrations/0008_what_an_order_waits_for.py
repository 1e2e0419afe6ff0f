"""An order keeps since when it is in its status, and the last failed attempt to book its parcel."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp


def upgrade() -> None:
    op.add_column("orders", sa.Column("status_since", Timestamp))
    op.add_column("orders", sa.Column("booking_failure", sa.Text))

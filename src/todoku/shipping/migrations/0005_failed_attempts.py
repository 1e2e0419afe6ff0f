"""A shipment keeps when a failed attempt to book it was published last."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Timestamp


def upgrade() -> None:
    op.add_column("shipments", sa.Column("failure_published_at", Timestamp))

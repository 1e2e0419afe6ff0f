"""Orders are found by the messages about them that are still parked."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    op.create_index(
        "parked_messages_open",
        "parked_messages",
        ["order_id"],
        sqlite_where=sa.text("closed = 0"),
        postgresql_where=sa.text("closed = 0"),
    )

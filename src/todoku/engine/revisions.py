"""The engine's tables as each revision of a service's schema brings them.

What is here is history: once released it is never edited. `todoku.engine.tables` says how the tables
are today, and a test holds the two against each other.
"""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp


def create_first_tables() -> None:
    """Inbox, outbox, leases and dead letters, for a service's first revision."""
    op.create_table(
        "inbox",
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("received_at", Timestamp, nullable=False),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("inbox_by_age", "inbox", ["received_at"])
    op.create_table(
        "outbox",
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("reader", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("position", Integer64, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("said_at", Timestamp, nullable=False),
        sa.UniqueConstraint("event_id", "reader"),
        sqlite_strict=True,
    )
    op.create_index("outbox_by_position", "outbox", ["owner", "position"])
    op.create_table(
        "leases",
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("expires_at", Timestamp, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "stream_positions",
        sa.Column("incarnation", sa.Text, primary_key=True),
        sa.Column("sequence", Integer64, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("headers", sa.Text),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text, nullable=False),
        sa.Column("attempts", Integer64, nullable=False),
        sa.Column("event_id", sa.Text),
        sa.Column("event_type", sa.Text),
        sa.Column("order_id", sa.Text),
        sa.Column("parked_at", Timestamp, nullable=False),
        sa.CheckConstraint("attempts >= 1", name="attempts_positive"),
        sqlite_strict=True,
    )
    op.create_index("dead_letters_by_order", "dead_letters", ["order_id"])

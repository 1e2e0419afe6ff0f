"""Orders, their items and their history; the engine's books."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_first_tables


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("total_amount", Integer64, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("shipping_address", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("shipment_id", sa.Text),
        sa.Column("tracking_number", sa.Text),
        sa.Column("event_count", Integer64, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.CheckConstraint(
            "status IN ('PENDING', 'AWAITING_SHIPMENT', 'COMPLETED', 'CANCELLED_NO_STOCK', "
            "'SHIPMENT_FAILED')",
            name="status_known",
        ),
        sa.CheckConstraint(
            "total_amount BETWEEN 1 AND 9007199254740991", name="total_amount_exact"
        ),
        sa.CheckConstraint(
            "status <> 'COMPLETED' OR tracking_number IS NOT NULL", name="completed_tracked"
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("orders_by_user", "orders", ["user_id", "id"])
    op.create_index("orders_by_status", "orders", ["status", "id"])
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("line", Integer64, primary_key=True),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("quantity", Integer64, nullable=False),
        sa.Column("price", Integer64, nullable=False),
        sa.CheckConstraint("quantity >= 1", name="quantity_positive"),
        sa.CheckConstraint("price >= 1", name="price_positive"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "order_events",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("event_id", sa.Text, primary_key=True),
        sa.Column("sequence", Integer64, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("actor", sa.Text),
        sa.Column("said_at", Timestamp, nullable=False),
        sa.Column("recorded_at", Timestamp, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.CheckConstraint("sequence >= 1", name="sequence_positive"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parked_messages",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("letter_id", sa.Text, primary_key=True),
        sa.Column("message_type", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("parked_at", Timestamp, nullable=False),
        sa.Column("closed", Integer64, nullable=False),
        sa.CheckConstraint("closed IN (0, 1)", name="closed_or_not"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    create_first_tables()

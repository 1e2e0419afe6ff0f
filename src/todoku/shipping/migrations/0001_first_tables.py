"""Shipments and their items; the engine's books."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_first_tables


def upgrade() -> None:
    op.create_table(
        "shipments",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("number", Integer64, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("attempts", Integer64, nullable=False),
        sa.Column("due_at", Timestamp),
        sa.Column("tracking_number", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("shipping_address", sa.Text, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.UniqueConstraint("order_id", "number"),
        sa.CheckConstraint(
            "status IN ('INITIATED', 'BOOKING', 'COMPLETED', 'FAILED')", name="status_known"
        ),
        sa.CheckConstraint(
            "(status IN ('COMPLETED', 'FAILED')) = (due_at IS NULL)", name="unfinished_falls_due"
        ),
        sa.CheckConstraint(
            "(status = 'COMPLETED') = (tracking_number IS NOT NULL)", name="completed_tracked"
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index(
        "shipments_due",
        "shipments",
        ["due_at"],
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "shipment_items",
        sa.Column("shipment_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("quantity", Integer64, nullable=False),
        sa.CheckConstraint("quantity >= 1", name="quantity_positive"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    create_first_tables()

"""Products, reservations and the ledger; the engine's books."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_first_tables


def upgrade() -> None:
    op.create_table(
        "products",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price", Integer64, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("stock_quantity", Integer64, nullable=False),
        sa.Column("reserved_quantity", Integer64, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.CheckConstraint("price BETWEEN 1 AND 9007199254740991", name="price_exact"),
        sa.CheckConstraint("stock_quantity BETWEEN 0 AND 9007199254740991", name="stock_exact"),
        sa.CheckConstraint(
            "reserved_quantity BETWEEN 0 AND stock_quantity", name="nothing_oversold"
        ),
        sqlite_strict=True,
    )
    op.create_table(
        "reservations",
        sa.Column("order_id", sa.Text, primary_key=True),
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("location", sa.Text, primary_key=True),
        sa.Column("quantity", Integer64, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", Timestamp, nullable=False),
        sa.Column("updated_at", Timestamp, nullable=False),
        sa.CheckConstraint("quantity >= 1", name="quantity_positive"),
        sa.CheckConstraint(
            "state IN ('RESERVED', 'REFUSED', 'SHIPPED', 'RELEASED')", name="state_known"
        ),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "stock_ledger",
        sa.Column("id", Integer64, primary_key=True),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("order_id", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("quantity", Integer64, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("entered_at", Timestamp, nullable=False),
        sa.CheckConstraint("reason IN ('OPENING', 'RESTOCK', 'SHIPMENT')", name="reason_known"),
        sa.CheckConstraint("(reason = 'SHIPMENT') = (quantity < 0)", name="only_shipments_take"),
        sa.CheckConstraint(
            "(reason = 'SHIPMENT') = (order_id IS NOT NULL)", name="shipments_have_orders"
        ),
        sqlite_strict=True,
    )
    op.create_index(
        "one_deduction_an_order_and_product",
        "stock_ledger",
        ["order_id", "product_id", "location"],
        unique=True,
        sqlite_where=sa.text("order_id IS NOT NULL"),
        postgresql_where=sa.text("order_id IS NOT NULL"),
    )
    create_first_tables()

"""A copy of inventory's catalogue; a product may cost nothing, and so may an order."""

import sqlalchemy as sa
from alembic import op

from todoku.database import Integer64, Timestamp
from todoku.engine.revisions import create_table


def upgrade() -> None:
    create_table(
        "catalogue",
        sa.Column("product_id", sa.Text, primary_key=True),
        sa.Column("version", Integer64, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("price", Integer64, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("archived", Integer64, nullable=False),
        sa.Column("changed_at", Timestamp, nullable=False),
        sa.Column("replaced", sa.Text),
        sa.CheckConstraint("price BETWEEN 0 AND 9007199254740991", name="price_exact"),
        sa.CheckConstraint("archived IN (0, 1)", name="archived_or_not"),
    )
    with op.batch_alter_table("orders") as orders:
        orders.drop_constraint("total_amount_exact", type_="check")
        orders.create_check_constraint(
            "total_amount_exact", "total_amount BETWEEN 0 AND 9007199254740991"
        )
    with op.batch_alter_table("order_items") as order_items:
        order_items.drop_constraint("price_positive", type_="check")
        order_items.create_check_constraint("price_not_negative", "price >= 0")

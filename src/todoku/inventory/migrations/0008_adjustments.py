"""Staff correct the stock, also downwards; the ledger says who changed it, and why."""

import sqlalchemy as sa
from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("stock_ledger") as ledger:
        ledger.add_column(sa.Column("adjustment_id", sa.Text))
        ledger.add_column(sa.Column("code", sa.Text))
        ledger.add_column(sa.Column("adjusted_by", sa.Text))
        ledger.drop_constraint("reason_known", type_="check")
        ledger.drop_constraint("only_shipments_take", type_="check")
        ledger.create_check_constraint(
            "reason_known", "reason IN ('OPENING', 'RESTOCK', 'CORRECTION', 'SHIPMENT')"
        )
        ledger.create_check_constraint(
            "only_shipments_and_corrections_take",
            "reason = 'CORRECTION' OR (reason = 'SHIPMENT') = (quantity < 0)",
        )
    op.create_index(
        "one_entry_an_adjustment",
        "stock_ledger",
        ["adjustment_id"],
        unique=True,
        sqlite_where=sa.text("adjustment_id IS NOT NULL"),
        postgresql_where=sa.text("adjustment_id IS NOT NULL"),
    )

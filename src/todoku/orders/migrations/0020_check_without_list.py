"""On SQLite, the status of an order is checked without `IN (…)`: for a list, SQLite fills a table for every
row that is written. PostgreSQL does not."""

from alembic import op


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    with op.batch_alter_table("orders") as orders:
        orders.drop_constraint("status_known", type_="check")
        orders.create_check_constraint(
            "status_known",
            "status = 'PENDING' OR status = 'AWAITING_SHIPMENT' OR status = 'COMPLETED'"
            " OR status = 'CANCELLED_NO_STOCK' OR status = 'CANCELLING' OR status = 'CANCELLED'"
            " OR status = 'SHIPMENT_FAILED'",
        )

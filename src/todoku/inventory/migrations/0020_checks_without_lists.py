"""On SQLite, reservations and the ledger are checked without `IN (…)`: for a list, SQLite fills a table for
every row that is written. PostgreSQL does not."""

from alembic import op


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    with op.batch_alter_table("reservations") as reservations:
        reservations.drop_constraint("state_known", type_="check")
        reservations.create_check_constraint(
            "state_known",
            "state = 'RESERVED' OR state = 'REFUSED' OR state = 'EXPECTED' OR state = 'WAITING'"
            " OR state = 'SHIPPED' OR state = 'RELEASED' OR state = 'CANCELLED'",
        )
    with op.batch_alter_table("stock_ledger") as ledger:
        ledger.drop_constraint("reason_known", type_="check")
        ledger.create_check_constraint(
            "reason_known",
            "reason = 'OPENING' OR reason = 'RESTOCK' OR reason = 'CORRECTION' OR reason = 'SHIPMENT'",
        )

"""On SQLite, the status of a shipment is checked without `IN (…)`: for a list, SQLite fills a table for every
row that is written. PostgreSQL does not."""

from alembic import op


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    with op.batch_alter_table("shipments") as shipments:
        shipments.drop_constraint("status_known", type_="check")
        shipments.create_check_constraint(
            "status_known",
            "status = 'INITIATED' OR status = 'EXPECTED' OR status = 'BOOKING'"
            " OR status = 'COMPLETED' OR status = 'FAILED' OR status = 'CANCELLED'",
        )

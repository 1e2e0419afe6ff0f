"""An order may end because its payment was declined."""

from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("orders") as orders:
        orders.drop_constraint("status_known", type_="check")
        orders.create_check_constraint(
            "status_known",
            "status IN ('PENDING', 'AWAITING_SHIPMENT', 'COMPLETED', 'CANCELLED_NO_STOCK', "
            "'CANCELLING', 'CANCELLED', 'SHIPMENT_FAILED', 'PAYMENT_DECLINED')",
        )

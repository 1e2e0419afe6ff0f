"""An order may end because its payment was declined."""

from alembic import op


def upgrade() -> None:
    with op.batch_alter_table("orders") as orders:
        orders.drop_constraint("status_known", type_="check")
        orders.create_check_constraint(
            "status_known",
            "status = 'PENDING' OR status = 'AWAITING_SHIPMENT' OR status = 'COMPLETED'"
            " OR status = 'CANCELLED_NO_STOCK' OR status = 'CANCELLING' OR status = 'CANCELLED'"
            " OR status = 'SHIPMENT_FAILED' OR status = 'PAYMENT_DECLINED'",
        )

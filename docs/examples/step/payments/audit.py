"""Contribute payments to `todoku verify`: the money must end as the order did."""

from collections.abc import Iterator

from sqlalchemy import Connection, select

from todoku.audit import AuditPart, Known, Wait, not_received
from todoku.payments.domain import PAYMENT, PaymentStatus
from todoku.payments.service import SINCE
from todoku.payments.store import payments


def known_payments(connection: Connection) -> Iterator[Known]:
    """Yield every payment."""
    for row in connection.execute(select(payments.c.order_id, payments.c.status)):
        yield Known(order_id=row.order_id, status=row.status)


def wait(connection: Connection, known: Known, order_status: str) -> Wait | None:
    """Return why an order that has a payment and no reservation has not ended."""
    reader = "inventory" if known.status == PaymentStatus.AUTHORIZED else "orders"
    return Wait(not_received(reader, "the result of its payment"))


payments_audit = AuditPart(
    entity="payment",
    lifecycle=PAYMENT,
    known=known_payments,
    holds={PaymentStatus.AUTHORIZED: "money is still held for it"},
    expected={
        "COMPLETED": ("CAPTURED",),
        "SHIPMENT_FAILED": ("RELEASED",),
        "CANCELLED_NO_STOCK": ("RELEASED",),
        "CANCELLED": ("RELEASED", "DECLINED"),
        "PAYMENT_DECLINED": ("DECLINED",),
    },
    since_saga_version=SINCE,
    wait=wait,
)

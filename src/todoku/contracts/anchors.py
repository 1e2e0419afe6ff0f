"""Define how each service anchors its audit log: every minute another one keeps the head of its chain."""

from typing import ClassVar

from todoku.events import AuditAnchoredEvent


class OrdersAuditAnchoredEvent(AuditAnchoredEvent, frozen=True, kw_only=True, rename="camel"):
    """The head of a chain of the audit log of orders."""

    subject: ClassVar[str] = "orders.audit_anchored"
    publisher: ClassVar[str] = "orders"


class InventoryAuditAnchoredEvent(AuditAnchoredEvent, frozen=True, kw_only=True, rename="camel"):
    """The head of a chain of the audit log of inventory."""

    subject: ClassVar[str] = "inventory.audit_anchored"
    publisher: ClassVar[str] = "inventory"


class ShippingAuditAnchoredEvent(AuditAnchoredEvent, frozen=True, kw_only=True, rename="camel"):
    """The head of a chain of the audit log of shipping."""

    subject: ClassVar[str] = "shipping.audit_anchored"
    publisher: ClassVar[str] = "shipping"

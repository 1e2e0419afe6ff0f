"""Check the databases of a system for broken invariants (docs/reliability.md).

The audit only reads. The services commit one after the other, so what compares two of them holds for a
quiescent system: one without pending deliveries. On a running system a finding counts if it lasts.
"""

from todoku.audit.collect import audit
from todoku.audit.part import (
    RESTORED,
    SEE_OTHERS,
    AuditPart,
    Finding,
    Known,
    KnownOrder,
    Pieces,
    Problem,
    Wait,
    not_received,
    pieces_by_owner,
)
from todoku.audit.report import Awaited, ParkedLetters, Report, orders_named

__all__ = [
    "RESTORED",
    "SEE_OTHERS",
    "AuditPart",
    "Awaited",
    "Finding",
    "Known",
    "KnownOrder",
    "ParkedLetters",
    "Pieces",
    "Problem",
    "Report",
    "Wait",
    "audit",
    "not_received",
    "orders_named",
    "pieces_by_owner",
]

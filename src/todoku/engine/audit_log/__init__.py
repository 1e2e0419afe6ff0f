"""The audit log of a service: who asked for what, and what came of it.

Rows are only ever added. Each process writes a chain: every row has a hash of itself and of the row before,
and the head of the chain is kept by another service, its anchor. So `todoku verify` finds a row that was
changed, removed or cut off at the end.
"""

from todoku.engine.audit_log.anchors import AuditAnchors, keep_anchor
from todoku.engine.audit_log.check import Anchor, ChainProblem, LogState, check_log
from todoku.engine.audit_log.entries import (
    BEGIN,
    DONE,
    REFUSED,
    REPEATED,
    RESTORED,
    STARTED,
    AuditEntry,
)
from todoku.engine.audit_log.keeper import AuditKeeper
from todoku.engine.audit_log.names import AuditNames
from todoku.engine.audit_log.requests import AuditRequest, request_of_task
from todoku.engine.audit_log.tables import AuditFilter, AuditLog, AuditRow
from todoku.engine.audit_log.trail import Trail

__all__ = [
    "BEGIN",
    "DONE",
    "REFUSED",
    "REPEATED",
    "RESTORED",
    "STARTED",
    "Anchor",
    "AuditAnchors",
    "AuditEntry",
    "AuditFilter",
    "AuditKeeper",
    "AuditLog",
    "AuditNames",
    "AuditRequest",
    "AuditRow",
    "ChainProblem",
    "LogState",
    "Trail",
    "check_log",
    "keep_anchor",
    "request_of_task",
]

"""Check the audit logs of the services against the anchors that others keep of them."""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, MetaData

from todoku.audit.part import Finding
from todoku.audit.report import AuditLogState
from todoku.engine import EngineTables
from todoku.engine.audit_log import Anchor, LogState, check_log

AUDIT: Final = "A1"
"""The invariant: the audit log is whole. Rows are only ever added."""

ADVICE: Final = (
    "Somebody else than this program has written to the database, or an older copy of it was put in its"
    " place: find out who could, and compare the audit log with a backup."
)

_tables = EngineTables(MetaData())


def audit_logs(
    connections: Mapping[str, Connection],
) -> tuple[list[Finding], tuple[AuditLogState, ...]]:
    """Return what is wrong with the audit logs, and the state of each that has rows or anchors."""
    # Before the rows that they vouch for, since both grow meanwhile.
    anchors: dict[str, list[Anchor]] = {}
    for connection in connections.values():
        for service, anchor in _tables.audit_anchors.read(connection):
            anchors.setdefault(service, []).append(anchor)
    findings: list[Finding] = []
    states: list[AuditLogState] = []
    for name, connection in connections.items():
        log = _tables.audit_log
        found = check_log(log.begins(connection), log.rows(connection), anchors.get(name, ()))
        findings += [
            Finding(AUDIT, name, f"audit log, chain {problem.chain}: {problem.problem}", ADVICE)
            for problem in found.problems
        ]
        findings += [
            Finding(
                AUDIT, name, f"audit log: the name with the digest {digest} was changed", ADVICE
            )
            for digest in _tables.audit_names.wrong(connection)
        ]
        if found.rows:
            states.append(_state(name, found))
    return findings, tuple(states)


def _state(name: str, found: LogState) -> AuditLogState:
    return AuditLogState(
        service=name,
        rows=found.rows,
        chains=found.chains,
        not_anchored=found.not_anchored,
        oldest_not_anchored=found.oldest_not_anchored,
        restored_at=found.restored_at,
    )

"""Add the engine's tables of the audit log."""

from todoku.engine.revisions import create_audit_log


def upgrade() -> None:
    create_audit_log()

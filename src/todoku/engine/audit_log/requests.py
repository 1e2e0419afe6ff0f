"""The request that a command belongs to: who asked for it, as the audit log tells it."""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Final

import msgspec

from todoku.engine.audit_log.entries import DONE, REPEATED, AuditEntry
from todoku.engine.idempotency import KeptAnswer


class AuditRequest(msgspec.Struct, kw_only=True):
    """A request that changes something; `name_of` returns the name of the problem that an error is.

    `recorded` becomes true when a row about it is committed.
    """

    operation: str
    name_of: Callable[[Exception], str]
    actor: str | None = None
    key_id: str | None = None
    subject: str | None = None
    about: str | None = None
    trace_id: str | None = None
    recorded: bool = False

    def entry(self, result: object = None, command: object = None) -> AuditEntry:
        """Return the entry about what came of it, or of one of its commands."""
        if isinstance(result, Exception):
            outcome = self.name_of(result)
        else:
            outcome = REPEATED if isinstance(result, KeptAnswer) else DONE
        return AuditEntry(
            operation=self.operation,
            outcome=outcome,
            actor=self.actor or getattr(command, "by", None),
            key_id=self.key_id,
            subject=self.subject or subject_of(command),
            about=self.about,
            trace_id=self.trace_id,
        )


def subject_of(command: object) -> str | None:
    """Return what a command is about: its first field, if that is a text."""
    fields = getattr(command, "__struct_fields__", None)
    found = getattr(command, fields[0]) if fields else None
    return found if isinstance(found, str) else None


request_of_task: Final[ContextVar[AuditRequest | None]] = ContextVar(
    "audited request", default=None
)
"""The request whose commands this task executes."""

"""The engine: inbox, outbox, dead letters, agendas and effects for a service's pure decisions."""

from todoku.engine.agenda import CONTEXT_COLUMN, Agenda, context_column
from todoku.engine.api_keys import ApiKeys, keep_key
from todoku.engine.audit_log import (
    AuditEntry,
    AuditFilter,
    AuditKeeper,
    AuditLog,
    AuditNames,
    AuditRequest,
    AuditRow,
    keep_anchor,
    request_of_task,
)
from todoku.engine.by_type import ByType
from todoku.engine.cache import StateCache
from todoku.engine.clock import Clock, Correction, SteadyClock
from todoku.engine.commits import Commits
from todoku.engine.config import EngineConfig, RetryPolicy
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.decisions import Decide
from todoku.engine.effects import add_trace, current_traceparent
from todoku.engine.failpoints import from_environment as failpoint_from_environment
from todoku.engine.idempotency import (
    AnswerFormat,
    AnswerUnavailable,
    IdempotencyKey,
    IdempotencyKeyReused,
    RequestInProgress,
    key_id,
)
from todoku.engine.keyed_store import KeyedStore
from todoku.engine.mailbox import MailboxFull, RecoveryPending
from todoku.engine.messages import Due, EventTooLarge, RepublishEvents
from todoku.engine.metrics import EngineMetrics
from todoku.engine.parts import AgendaParts
from todoku.engine.pause_tables import Pauses
from todoku.engine.pauses import (
    NotPaused,
    Pause,
    PauseRecord,
    PauseState,
    Resume,
    UnknownPause,
    UnknownPauseTarget,
)
from todoku.engine.persons import (
    ERASED,
    ErasedPerson,
    ErasePerson,
    IsPerson,
    OpenWork,
    Owner,
    PersonHasOpenWork,
    Persons,
    UnknownPerson,
    exported,
    keep_erasure,
    rows_about,
    scrubbed,
)
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.process import Process, ProcessFailed
from todoku.engine.readings import DatabaseMetrics, Reading, engine_readings
from todoku.engine.receipts import ReceiptMessage
from todoku.engine.saga import BySagaVersion, SagaStart, by_saga_version
from todoku.engine.service import (
    DeadLetterEvent,
    PausesPublication,
    Service,
    Store,
    Topology,
    UnitOfWork,
)
from todoku.engine.shared_timeout import SharedTimeout
from todoku.engine.tables import STREAM, EngineTables, Outbox, OutboxRow
from todoku.engine.tracing import BatchSpans, EffectSpan, Tracer

__all__ = [
    "CONTEXT_COLUMN",
    "ERASED",
    "STREAM",
    "Agenda",
    "AgendaParts",
    "AnswerFormat",
    "AnswerUnavailable",
    "ApiKeys",
    "AuditEntry",
    "AuditFilter",
    "AuditKeeper",
    "AuditLog",
    "AuditNames",
    "AuditRequest",
    "AuditRow",
    "BatchSpans",
    "BySagaVersion",
    "ByType",
    "Clock",
    "Commits",
    "Correction",
    "DatabaseMetrics",
    "DeadLetterEvent",
    "DeadLetters",
    "Decide",
    "Due",
    "EffectSpan",
    "EngineConfig",
    "EngineMetrics",
    "EngineTables",
    "ErasePerson",
    "ErasedPerson",
    "EventTooLarge",
    "IdempotencyKey",
    "IdempotencyKeyReused",
    "IsPerson",
    "KeyedStore",
    "MailboxFull",
    "NotPaused",
    "OpenWork",
    "Outbox",
    "OutboxRow",
    "Owner",
    "Pause",
    "PauseRecord",
    "PauseState",
    "Pauses",
    "PausesPublication",
    "PersonHasOpenWork",
    "Persons",
    "PostCommitActions",
    "Process",
    "ProcessFailed",
    "Reading",
    "ReceiptMessage",
    "RecoveryPending",
    "RepublishEvents",
    "RequestInProgress",
    "Resume",
    "RetryPolicy",
    "SagaStart",
    "Service",
    "SharedTimeout",
    "StateCache",
    "SteadyClock",
    "Store",
    "Topology",
    "Tracer",
    "UnitOfWork",
    "UnknownPause",
    "UnknownPauseTarget",
    "UnknownPerson",
    "add_trace",
    "by_saga_version",
    "context_column",
    "current_traceparent",
    "engine_readings",
    "exported",
    "failpoint_from_environment",
    "keep_anchor",
    "keep_erasure",
    "keep_key",
    "key_id",
    "request_of_task",
    "rows_about",
    "scrubbed",
]

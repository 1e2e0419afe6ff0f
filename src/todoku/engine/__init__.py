"""The engine: inbox, outbox, dead letters, agendas and effects for a service's pure decisions."""

from todoku.engine.batch_context import RetryPolicy
from todoku.engine.cache import StateCache
from todoku.engine.clock import Clock, SteadyClock
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.failpoints import from_environment as failpoint_from_environment
from todoku.engine.keyed_store import KeyedStore
from todoku.engine.mailbox import MailboxFull
from todoku.engine.messages import Due, EventTooLarge, RepublishEvents
from todoku.engine.metrics import EngineMetrics
from todoku.engine.process import EngineConfig, Process, ProcessFailed
from todoku.engine.service import (
    Agenda,
    DeadLetterEvent,
    Decide,
    Service,
    Store,
    Topology,
    UnitOfWork,
)
from todoku.engine.tables import EngineTables, Outbox

__all__ = [
    "Agenda",
    "Clock",
    "DeadLetterEvent",
    "DeadLetters",
    "Decide",
    "Due",
    "EngineConfig",
    "EngineMetrics",
    "EngineTables",
    "EventTooLarge",
    "KeyedStore",
    "MailboxFull",
    "Outbox",
    "Process",
    "ProcessFailed",
    "RepublishEvents",
    "RetryPolicy",
    "Service",
    "StateCache",
    "SteadyClock",
    "Store",
    "Topology",
    "UnitOfWork",
    "failpoint_from_environment",
]

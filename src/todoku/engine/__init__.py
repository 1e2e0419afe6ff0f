"""Everything that makes a service reliable, and nothing about orders, stock or shipments."""

from todoku.engine.clock import Clock, SteadyClock
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.failpoints import from_environment as failpoint_from_environment
from todoku.engine.mailbox import MailboxFull
from todoku.engine.messages import Due
from todoku.engine.metrics import EngineMetrics
from todoku.engine.process import Process, ProcessFailed, Tuning
from todoku.engine.service import Agenda, Decide, Service, Store, Topology, World
from todoku.engine.tables import EngineTables
from todoku.engine.work import Patience

__all__ = [
    "Agenda",
    "Clock",
    "DeadLetters",
    "Decide",
    "Due",
    "EngineMetrics",
    "EngineTables",
    "MailboxFull",
    "Patience",
    "Process",
    "ProcessFailed",
    "Service",
    "SteadyClock",
    "Store",
    "Topology",
    "Tuning",
    "World",
    "failpoint_from_environment",
]

"""Everything that makes a service reliable, and nothing about orders, stock or shipments."""

from todoku.engine.clock import Clock, SteadyClock
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.failpoints import from_environment as failpoint_from_environment
from todoku.engine.mailbox import MailboxFull
from todoku.engine.memory import LINES_REMEMBERED_MAX, Memory
from todoku.engine.messages import Due, SayAgain
from todoku.engine.metrics import EngineMetrics
from todoku.engine.process import Process, ProcessFailed, Tuning
from todoku.engine.service import Agenda, Decide, Service, Store, Topology, World
from todoku.engine.tables import EngineTables, Outbox
from todoku.engine.work import Patience

__all__ = [
    "LINES_REMEMBERED_MAX",
    "Agenda",
    "Clock",
    "DeadLetters",
    "Decide",
    "Due",
    "EngineMetrics",
    "EngineTables",
    "MailboxFull",
    "Memory",
    "Outbox",
    "Patience",
    "Process",
    "ProcessFailed",
    "SayAgain",
    "Service",
    "SteadyClock",
    "Store",
    "Topology",
    "Tuning",
    "World",
    "failpoint_from_environment",
]

"""Events, the envelope they travel in, and their form on the wire; nothing about any service.

A leaf: it imports nothing of Todoku, so that contracts, engine and adopters can build upon it.
"""

from todoku.events.api_key import ApiKeyEvent
from todoku.events.audit_anchor import AuditAnchoredEvent
from todoku.events.envelope import (
    CONTENT_TYPE,
    Envelope,
    UndecodableEvent,
    UnknownEventType,
    UnknownSagaVersion,
    encode,
    is_service_name,
    read_envelope,
    seal,
)
from todoku.events.erasure import ErasureEvent
from todoku.events.event import (
    NO_CONTEXT,
    Context,
    Event,
    InContext,
    Personal,
    exemplar_of,
    trace_fields,
    trace_id_of,
)
from todoku.events.exemplars import Exemplars
from todoku.events.fact_ids import fact_id, is_canonical_uuid
from todoku.events.registry import EventRegistry, FalseOrigin

__all__ = [
    "CONTENT_TYPE",
    "NO_CONTEXT",
    "ApiKeyEvent",
    "AuditAnchoredEvent",
    "Context",
    "Envelope",
    "ErasureEvent",
    "Event",
    "EventRegistry",
    "Exemplars",
    "FalseOrigin",
    "InContext",
    "Personal",
    "UndecodableEvent",
    "UnknownEventType",
    "UnknownSagaVersion",
    "encode",
    "exemplar_of",
    "fact_id",
    "is_canonical_uuid",
    "is_service_name",
    "read_envelope",
    "seal",
    "trace_fields",
    "trace_id_of",
]

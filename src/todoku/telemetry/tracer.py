"""The tracer of a service: spans of batches, decisions, effects and publishes."""

from collections.abc import Sequence
from time import time_ns
from typing import Final

from todoku.engine import BatchSpans, EffectSpan, OutboxRow
from todoku.events import Context, Envelope
from todoku.telemetry import encoding
from todoku.telemetry.encoding import CLIENT, CONSUMER, INTERNAL, PRODUCER
from todoku.telemetry.open_spans import OpenSpans
from todoku.telemetry.parents import (
    Parent,
    Sample,
    new_span_id,
    new_trace,
    parent_of,
    sampled_link,
    within,
)
from todoku.telemetry.plugins import enter_span
from todoku.telemetry.store import SpanStore

LINKS_MAX: Final = 128
"""How many links a span has at most: the default of OpenTelemetry's limits."""


class ServiceTracer:
    """Makes the spans of one process of a service, into its `store`.

    A span is sampled if its parent is; `sample` decides on a trace that begins here. With
    `parents`, each decision has a span in the trace of its order; without, only the span of its batch
    links to it, and the order's context goes on unchanged.
    """

    def __init__(
        self,
        service: str,
        store: SpanStore,
        sample: Sample,
        *,
        parents: bool = True,
        destination: str = "TODOKU",
        prefix: str = "",
    ) -> None:
        self.store, self.sample, self.parents = store, sample, parents
        self.open = OpenSpans(store)
        self._service = service
        self._prefix = f"{prefix}." if prefix else ""
        self._shapes: dict[tuple[str, str], bytes] = {}
        self._batch = self._messaging("process", destination, CONSUMER, encoding.SAMPLED)
        self._publish = self._messaging("send", destination, PRODUCER, encoding.SAMPLED)

    def batch(self) -> BatchSpans:
        """Begin the spans of a transaction."""
        return _Batch(self)

    def effect(self, effect: object, context: Context) -> EffectSpan:
        """Begin the span of an effect, in the task that runs it."""
        return _Effect(self, type(effect).__name__, context)

    def published(self, rows: Sequence[OutboxRow], seconds: float) -> None:
        """Note that the stream has stored these events, which took so long."""
        links: list[bytes] = []
        dropped = 0
        for row in rows:
            at = row.body.find(b'"traceparent":"')
            link = sampled_link(row.body[at + 15 : at + 70]) if at > 0 else None
            if link is None:
                continue
            if len(links) < LINKS_MAX:
                links.append(link)
            else:
                dropped += 1
        if links:
            ended = time_ns()
            began = ended - int(seconds * 1e9)
            self.store.add(self._of_many(self._publish, began, ended, len(rows), links, dropped))

    def event_shape(self, subject: str) -> bytes:
        """Return what the spans of all events on a subject have in common."""
        key = "event", subject
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = self._messaging(
                "process", self._prefix + subject, CONSUMER, encoding.SAMPLED_REMOTE
            )
        return found

    def due_shape(self, agenda: str) -> bytes:
        """Return what the spans of all due rows of an agenda have in common."""
        key = "due", agenda
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = encoding.shape(
                f"due {agenda}", INTERNAL, {"todoku.agenda": agenda}
            )
        return found

    def effect_shape(self, effect: str) -> bytes:
        """Return what the spans of all effects of a type have in common."""
        key = "effect", effect
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = encoding.shape(
                effect, CLIENT, {"todoku.effect": effect}, flags=encoding.SAMPLED
            )
        return found

    def of_batch(
        self, began: int, ended: int, messages: int, links: Sequence[bytes], dropped: int
    ) -> bytes:
        """Return the span of a batch."""
        return self._of_many(self._batch, began, ended, messages, links, dropped)

    def _of_many(
        self,
        shape: bytes,
        began: int,
        ended: int,
        messages: int,
        links: Sequence[bytes],
        dropped: int,
    ) -> bytes:
        count = encoding.attribute("messaging.batch.message_count", messages)
        rest = [shape, count, *links]
        if dropped:
            rest.append(encoding.dropped_links(dropped))
        trace = new_trace(lambda _: True)
        span_id = new_span_id().to_bytes(8)
        return encoding.span(
            trace.trace_id, span_id, encoding.NO_PARENT, began, ended, b"".join(rest)
        )

    def _messaging(self, operation: str, destination: str, kind: int, flags: int) -> bytes:
        attributes: dict[str, encoding.Value] = {
            "messaging.system": "nats",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.destination.name": destination,
        }
        if kind == CONSUMER:
            attributes["messaging.consumer.group.name"] = self._service
        return encoding.shape(f"{operation} {destination}", kind, attributes, flags=flags)


class _Batch:
    def __init__(self, tracer: ServiceTracer) -> None:
        self._tracer = tracer
        self._began = time_ns()
        self._decisions: list[tuple[Parent, int, bytes]] = []
        self._links: list[bytes] = []
        self._dropped_links = 0
        self._commands: list[str] = []

    def command(self, context: Context) -> None:
        if context.traceparent is not None:
            self._commands.append(context.traceparent)

    def event(self, envelope: Envelope, subject: str, attempt: int = 1) -> Context:
        parent = self._parent(envelope.traceparent)
        if parent is None:
            return envelope.context
        if not parent.sampled:
            return self._unsampled(parent, envelope.context)
        message_id = encoding.text_attribute("messaging.message.id", envelope.id)
        rest = self._tracer.event_shape(subject) + message_id
        rest += encoding.text_attribute("cloudevents.event_subject", envelope.subject)
        if parent.span_id:
            if not self._tracer.parents:
                self._link(parent, message_id)
                return envelope.context
            rest += encoding.link(parent.trace_id, parent.span_id)
        if attempt > 1:
            rest += encoding.attribute("todoku.delivery.attempt", attempt)
        return self._begin(parent, envelope.context, rest)

    def due(self, agenda: str, key: str, context: Context) -> Context:
        parent = self._parent(context.traceparent)
        if parent is None:
            return context
        if not parent.sampled:
            return self._unsampled(parent, context)
        if not self._tracer.parents and parent.span_id:
            self._link(parent, encoding.text_attribute("messaging.message.id", key))
            return context
        rest = self._tracer.due_shape(agenda) + encoding.text_attribute("todoku.key", key)
        return self._begin(parent, context, rest)

    def failed(self, error: Exception) -> None:
        if self._decisions:
            parent, span_id, rest = self._decisions[-1]
            rest += encoding.failure(type(error).__qualname__, "")
            self._decisions[-1] = parent, span_id, rest

    def before_commit(self) -> None:
        unfinished = self._tracer.open.unfinished(self._commands) if self._commands else ()
        # Also what effects have left in memory: their results, now committed, refer to it.
        if self._decisions or self._commands:
            began, ended, span = self._began, time_ns(), encoding.span
            self._tracer.store.write(
                [
                    span(parent.trace_id, span_id.to_bytes(8), parent.span_id, began, ended, rest)
                    for parent, span_id, rest in self._decisions
                ],
                unfinished,
            )

    def committed(self, messages: int) -> None:
        if self._links or (messages and self._decisions):
            span = self._tracer.of_batch(
                self._began, time_ns(), messages, self._links, self._dropped_links
            )
            self._tracer.store.add(span)

    def _parent(self, traceparent: str | None) -> Parent | None:
        """Return the parent of a decision, or the beginning of a trace; None for a malformed one."""
        return new_trace(self._tracer.sample) if traceparent is None else parent_of(traceparent)

    def _begin(self, parent: Parent, context: Context, rest: bytes) -> Context:
        span_id = new_span_id()
        if context.tracestate is not None:
            rest += encoding.trace_state(context.tracestate)
        self._decisions.append((parent, span_id, rest))
        return within(context, parent.child(span_id))

    def _unsampled(self, parent: Parent, context: Context) -> Context:
        return context if parent.span_id else within(context, parent.child(new_span_id()))

    def _link(self, parent: Parent, message_id: bytes) -> None:
        if len(self._links) >= LINKS_MAX:
            self._dropped_links += 1
            return
        about = encoding.link_attribute(message_id)
        self._links.append(encoding.link(parent.trace_id, parent.span_id, about))


class _Effect:
    def __init__(self, tracer: ServiceTracer, effect: str, context: Context) -> None:
        self._tracer, self._effect, self.context = tracer, effect, context
        self._parent: Parent | None = None
        parent = None if context.traceparent is None else parent_of(context.traceparent)
        if parent is None:
            return
        self._span_id = new_span_id()
        self.context = within(context, parent.child(self._span_id))
        enter_span(parent, self._span_id)
        if parent.sampled:
            self._parent, self._began = parent, time_ns()

    def end(self, error: Exception | str | None) -> None:
        parent = self._parent
        if parent is None:
            return
        rest = self._tracer.effect_shape(self._effect)
        if self.context.cause is not None:
            rest += encoding.text_attribute("todoku.cause", self.context.cause)
        if error is not None:
            kind = error if isinstance(error, str) else type(error).__qualname__
            rest += encoding.failure(kind, "")
        span_id = self._span_id.to_bytes(8)
        self._tracer.store.add(
            encoding.span(parent.trace_id, span_id, parent.span_id, self._began, time_ns(), rest)
        )

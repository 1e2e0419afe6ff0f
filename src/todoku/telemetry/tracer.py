"""The tracer of a service: spans of batches, decisions, effects and publishes."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from time import time_ns
from typing import Final

from todoku.engine import BatchSpans, EffectSpan, OutboxRow
from todoku.events import Context, Envelope
from todoku.telemetry import encoding
from todoku.telemetry.encoding import (
    CLIENT,
    CONSUMER,
    INTERNAL,
    LINK,
    PARENT_ID,
    PRODUCER,
    SPAN_ID,
    TRACE_ID,
)
from todoku.telemetry.open_spans import OpenSpans
from todoku.telemetry.parents import (
    ODD,
    TRACEPARENT_LENGTH,
    Sample,
    children,
    is_sampled,
    new_root,
    new_span_id,
    parent_of,
    randbytes,
)
from todoku.telemetry.plugins import enter_span
from todoku.telemetry.store import SpanStore

BYTES_BEFORE_TRACEPARENT: Final = 90
"""How many bytes an encoded envelope has at least before its traceparent: the attributes that each has."""

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
        self.layouts: dict[tuple[str, int, int], tuple[bytes, bytes, bytes]] = {}
        self._effect_layouts: dict[tuple[str, int], tuple[bytes, bytes]] = {}
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
        traced = []
        for row in rows:
            body = row.body
            at = body.find(b'"traceparent":"00-', BYTES_BEFORE_TRACEPARENT) + 18
            if at > 18:
                traced.append(body[at : at + 52])
        if len(traced) > LINKS_MAX:
            traced = [each for each in traced if each.endswith(b"-01")]
        links = encoding.links(traced[:LINKS_MAX])
        if not links:
            return
        if len(traced) > LINKS_MAX:
            links += encoding.dropped_links(len(traced) - LINKS_MAX)
        ended = time_ns()
        began = ended - int(seconds * 1e9)
        self.store.add(_of_many(self._publish, began, ended, len(rows), links))

    def event_shape(self, subject: str) -> bytes:
        """Return what the spans of all events on a subject have in common."""
        key = "event", subject
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = self._messaging(
                "process", self._prefix + subject, CONSUMER, encoding.SAMPLED_REMOTE
            )
        return found

    def event_layout(self, key: tuple[str, int, int]) -> tuple[bytes, bytes, bytes]:
        """Add to `layouts` what goes before the trace id, the id and the subject of an event; return it. The
        `key` is the broker's subject, and the lengths of id and subject."""
        if len(self.layouts) >= encoding.LAYOUTS_MAX:
            self.layouts.clear()
        subject, *lengths = key
        before_id = self.event_shape(subject)
        before_id += encoding.head_of_text("messaging.message.id", lengths[0])
        before_subject = encoding.head_of_text("cloudevents.event_subject", lengths[1])
        length = len(before_id) + len(before_subject) + sum(lengths)
        head = encoding.head(encoding.IDS_LENGTH + length + encoding.LINK_LENGTH)
        found = self.layouts[key] = head + TRACE_ID, before_id, before_subject
        return found

    def due_shape(self, agenda: str) -> bytes:
        """Return what the spans of all due rows of an agenda have in common."""
        key = "due", agenda
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = encoding.shape(
                f"due {agenda}", INTERNAL, {"todoku.agenda": agenda}
            )
        return found

    def effect_layout(self, key: tuple[str, int]) -> tuple[bytes, bytes]:
        """Return what goes before the trace id of an effect, and before the id of its cause. The `key` is its
        type, and the length of that id, 0 for none."""
        if (found := self._effect_layouts.get(key)) is None:
            if len(self._effect_layouts) >= encoding.LAYOUTS_MAX:
                self._effect_layouts.clear()
            effect, length = key
            shape = encoding.shape(
                effect, CLIENT, {"todoku.effect": effect}, flags=encoding.SAMPLED
            )
            if length:
                shape += encoding.head_of_text("todoku.cause", length)
            head = encoding.head(encoding.IDS_LENGTH + len(shape) + length)
            found = self._effect_layouts[key] = head + TRACE_ID, shape
        return found

    def of_batch(self, began: int, messages: int, links: bytes) -> bytes:
        """Return the span of a batch that ends now."""
        return _of_many(self._batch, began, time_ns(), messages, links)

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


def _of_many(shape: bytes, began: int, ended: int, messages: int, links: bytes) -> bytes:
    """Return the span of many messages, the root of a trace of its own."""
    ids, times = randbytes(24), encoding.times(began, ended)
    head, about = _layout_of_many(shape, messages, len(links))
    return b"".join((head, ids[:16], SPAN_ID, ids[16:], times, about, links))


@lru_cache(maxsize=encoding.LAYOUTS_MAX)
def _layout_of_many(shape: bytes, messages: int, links_length: int) -> tuple[bytes, bytes]:
    """Return what goes before the trace id, and before the links."""
    about = shape + encoding.attribute("messaging.batch.message_count", messages)
    head = encoding.head(encoding.IDS_OF_ROOT_LENGTH + len(about) + links_length)
    return head + TRACE_ID, about


def _link(traceparent: str, message_id: str) -> bytes:
    """Return the link of a batch to one of its messages; none to a malformed traceparent."""
    ids = parent_of(traceparent)
    if ids is None:
        return b""
    text = message_id.encode()
    head, before_id = _layout_of_link(len(text))
    return b"".join((head, ids[:16], SPAN_ID, ids[16:], before_id, text))


@lru_cache(maxsize=encoding.LAYOUTS_MAX)
def _layout_of_link(length: int) -> tuple[bytes, bytes]:
    """Return what goes before the trace id, and before the id of the message, which has so many bytes."""
    before_id = encoding.link_attribute(encoding.head_of_text("messaging.message.id", length))
    size = encoding.LINK_LENGTH - 2 + len(before_id) + length
    return b"j" + encoding.varint(size) + TRACE_ID, before_id


class _Batch:
    """The spans of a transaction: noted while it decides, and encoded together before its commit."""

    __slots__ = (
        "_began",
        "_commands",
        "_events",
        "_linked",
        "_other_at",
        "_others",
        "_parents",
        "_tracer",
        "_without_span_at",
    )

    def __init__(self, tracer: ServiceTracer) -> None:
        self._tracer, self._parents = tracer, tracer.parents
        self._began = time_ns()
        self._events: list[tuple[str, str, str, str, str]] = []
        self._others: list[tuple[bytes, str, bytes, bytes]] = []
        self._other_at = self._without_span_at = 0
        self._linked: list[tuple[str, str]] = []
        self._commands: list[str] = []

    def command(self, context: Context) -> None:
        if context.traceparent is not None:
            self._commands.append(context.traceparent)

    def event(self, envelope: Envelope, subject: str, attempt: int = 1) -> Context:
        traceparent = envelope.traceparent
        if (
            attempt > 1
            or traceparent is None
            or not self._parents
            or envelope.tracestate is not None
            or len(traceparent) != TRACEPARENT_LENGTH
            or traceparent[54] not in ODD
        ):
            return self._other_event(envelope, subject, attempt)
        span_id = new_span_id()
        self._events.append((traceparent, span_id, subject, envelope.id, envelope.subject))
        child = f"00-{traceparent[3:35]}-{span_id}-01"
        return Context(envelope.actor, child, None, envelope.sagaversion)

    def due(self, agenda: str, key: str, context: Context) -> Context:
        rest = self._tracer.due_shape(agenda) + encoding.text_attribute("todoku.key", key)
        return self._begin(context, key, rest, links=False)

    def failed(self, error: Exception) -> None:
        begun = len(self._events) + len(self._others)
        if begun == self._without_span_at:
            return
        status = encoding.failure(type(error).__qualname__, "")
        if begun != self._other_at:
            traceparent, span_id, subject, message_id, key = self._events.pop()
            ids = parent_of(traceparent)
            if ids is None:
                return
            rest = self._of_event(subject, message_id, key) + encoding.link(ids[:16], ids[16:])
            self._others.append((ids[:16], span_id, ids[16:], rest))
        trace_id, span_id, parent, rest = self._others[-1]
        self._others[-1] = trace_id, span_id, parent, rest + status

    def before_commit(self) -> None:
        commands = self._commands
        # Also what effects have left in memory: their results, now committed, refer to it.
        if self._events or self._others or commands:
            unfinished = self._tracer.open.unfinished(commands) if commands else {}
            spans = self._encoded()
            self._tracer.store.write(spans, len(self._events) + len(self._others), unfinished)

    def committed(self, messages: int) -> None:
        linked = self._linked
        if linked or (messages and (self._events or self._others)):
            links = b"".join([_link(*each) for each in linked[:LINKS_MAX]])
            if len(linked) > LINKS_MAX:
                links += encoding.dropped_links(len(linked) - LINKS_MAX)
            self._tracer.store.add(self._tracer.of_batch(self._began, messages, links))

    def _encoded(self) -> bytes:
        """Return the spans of the decisions: each has its message as parent and as link."""
        began, ended = self._began, time_ns()
        spans = [
            encoding.span(trace_id, bytes.fromhex(span_id), parent, began, ended, rest)
            for trace_id, span_id, parent, rest in self._others
        ]
        times, layouts = encoding.times(began, ended), self._tracer.layouts
        for (trace_id, parent, span_id), (_, _, subject, message_id, key) in zip(
            self._ids(), self._events, strict=True
        ):
            text, about = message_id.encode(), key.encode()
            layout = subject, len(text), len(about)
            head, before_id, before_key = layouts.get(layout) or self._tracer.event_layout(layout)
            spans += (head, trace_id, SPAN_ID, span_id, PARENT_ID, parent, times, before_id)
            spans += (text, before_key, about, LINK, trace_id, SPAN_ID, parent)
        return b"".join(spans)

    def _ids(self) -> Iterable[tuple[bytes, ...]]:
        """Return trace id, parent and span id of each event; drop those with a malformed traceparent."""
        try:
            return children([traceparent + span_id for traceparent, span_id, *_ in self._events])
        except ValueError:
            valid = [each for each in self._events if parent_of(each[0]) is not None]
            self._events = valid
            return children([traceparent + span_id for traceparent, span_id, *_ in valid])

    def _other_event(self, envelope: Envelope, subject: str, attempt: int) -> Context:
        """Begin to decide on an event that is not like most: it is repeated, or has no trace, or none that is
        sampled, or batches only link."""
        if not self._parents and envelope.traceparent and is_sampled(envelope.traceparent):
            self._without_span_at = len(self._events) + len(self._others)
            self._linked.append((envelope.traceparent, envelope.id))
            return envelope.context
        rest = self._of_event(subject, envelope.id, envelope.subject) if self._parents else b""
        if attempt > 1:
            rest += encoding.attribute("todoku.delivery.attempt", attempt)
        return self._begin(envelope.context, envelope.id, rest, links=True)

    def _of_event(self, subject: str, message_id: str, key: str) -> bytes:
        shape = self._tracer.event_shape(subject)
        shape += encoding.text_attribute("messaging.message.id", message_id)
        return shape + encoding.text_attribute("cloudevents.event_subject", key)

    def _begin(self, context: Context, key: str, rest: bytes, *, links: bool) -> Context:
        """Begin the span of a decision, if it has one; return the context of what follows from it."""
        self._without_span_at = len(self._events) + len(self._others)
        parent, traceparent = b"", context.traceparent
        if traceparent is None:
            trace_id = new_root()[3:35]
            sampled = self._tracer.sample(trace_id)
        else:
            ids = parent_of(traceparent)
            if ids is None:
                return context
            trace_id, parent, sampled = traceparent[3:35], ids[16:], is_sampled(traceparent)
            if sampled and not self._parents:
                self._linked.append((traceparent, key))
            if not sampled or not self._parents:
                return context
        span_id = new_span_id()
        if sampled:
            trace = bytes.fromhex(trace_id)
            if links and parent:
                rest += encoding.link(trace, parent)
            if context.tracestate is not None:
                rest += encoding.trace_state(context.tracestate)
            self._others.append((trace, span_id, parent, rest))
            self._other_at = len(self._events) + len(self._others)
        return _within(context, f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}")


class _Effect:
    """The span of an effect."""

    __slots__ = ("_began", "_effect", "_span_id", "_traceparent", "_tracer", "context")

    def __init__(self, tracer: ServiceTracer, effect: str, context: Context) -> None:
        self.context = context
        self._traceparent: str | None = None
        traceparent = context.traceparent
        if traceparent is None or len(traceparent) != TRACEPARENT_LENGTH:
            return
        sampled = traceparent[54] in ODD
        span_id = new_span_id()
        child = f"00-{traceparent[3:35]}-{span_id}-{'01' if sampled else '00'}"
        self.context = _within(context, child)
        enter_span(child)
        if sampled:
            self._tracer, self._effect, self._span_id = tracer, effect, span_id
            self._traceparent, self._began = traceparent, time_ns()

    def end(self, error: Exception | str | None) -> None:
        traceparent = self._traceparent
        if traceparent is None:
            return
        try:
            ((trace_id, parent, span_id),) = children([traceparent + self._span_id])
        except ValueError:
            return  # It came in a malformed traceparent.
        began, ended = self._began, time_ns()
        cause = b"" if self.context.cause is None else self.context.cause.encode()
        head, shape = self._tracer.effect_layout((self._effect, len(cause)))
        if error is None:
            times = encoding.times(began, ended)
            parts = (head, trace_id, SPAN_ID, span_id, PARENT_ID, parent, times, shape, cause)
            self._tracer.store.add(b"".join(parts))
            return
        kind = error if isinstance(error, str) else type(error).__qualname__
        rest = shape + cause + encoding.failure(kind, "")
        self._tracer.store.add(encoding.span(trace_id, span_id, parent, began, ended, rest))


def _within(context: Context, traceparent: str) -> Context:
    """Return a context with another traceparent."""
    return Context(
        context.actor, traceparent, context.tracestate, context.saga_version, context.cause
    )

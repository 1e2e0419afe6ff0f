"""The tracer of a service: spans of batches, decisions, effects and publishes."""

from binascii import unhexlify
from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import Struct
from time import time_ns
from typing import Final

from todoku.engine import BatchSpans, EffectSpan, OutboxRow
from todoku.events import Context, Envelope
from todoku.telemetry import encoding
from todoku.telemetry.encoding import (
    BEGAN,
    CLIENT,
    CONSUMER,
    ENDED,
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


EventLayout = tuple[int, int, Callable[..., bytes], bytes, bytes, str, int]
"""How the span of an event is encoded without its times: how long its id and its subject are; its
`Struct.pack`; what goes before the trace id, before the id of the event, and before its subject; and how long
the texts with what is between them are."""

EffectLayout = tuple[Callable[..., bytes], bytes, bytes]
"""How the span of an effect is encoded: its `Struct.pack`, and what goes before the trace id, and before the
id of its cause."""


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
        self.layouts: dict[str, EventLayout] = {}
        """Of the last event on each subject: its ids are most often as long as those before."""
        self._event_layouts: dict[tuple[str, int, int], EventLayout] = {}
        self._effect_layouts: dict[tuple[str, int], EffectLayout] = {}
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
        traced = [t for row in rows if (t := row.traceparent or _traceparent_in(row.body))]
        if len(traced) > LINKS_MAX:
            traced = [each for each in traced if is_sampled(each)]
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

    def event_layout(self, subject: str, id_length: int, subject_length: int) -> EventLayout | None:
        """Return how the spans of an event are encoded, by the broker's subject, and the lengths of its id
        and its own subject; add it to `layouts`. None if they are so long that their tags are no ASCII."""
        key = subject, id_length, subject_length
        if (found := self._event_layouts.get(key)) is None:
            before_id = self.event_shape(subject)
            before_id += encoding.head_of_text("messaging.message.id", id_length)
            before_subject = encoding.head_of_text("cloudevents.event_subject", subject_length)
            if not before_subject.isascii():
                return None
            texts = id_length + len(before_subject) + subject_length
            size = encoding.IDS_LENGTH + len(before_id) + texts + encoding.LINK_LENGTH
            head = encoding.head(size) + TRACE_ID
            form = f"<{len(head)}s16s2s8s2s8s{len(before_id)}s{texts}s4s16s2s8s"
            about = Struct(form).pack, head, before_id, before_subject.decode(), texts
            if len(self._event_layouts) >= encoding.LAYOUTS_MAX:
                self._event_layouts.clear()
            found = self._event_layouts[key] = id_length, subject_length, *about
        self.layouts[subject] = found
        return found

    def due_shape(self, agenda: str) -> bytes:
        """Return what the spans of all due rows of an agenda have in common."""
        key = "due", agenda
        if (found := self._shapes.get(key)) is None:
            found = self._shapes[key] = encoding.shape(
                f"due {agenda}", INTERNAL, {"todoku.agenda": agenda}
            )
        return found

    def effect_layout(self, key: tuple[str, int]) -> EffectLayout:
        """Return how the spans of an effect are encoded. The `key` is its type, and the length of the id of
        its cause, 0 for none."""
        if (found := self._effect_layouts.get(key)) is None:
            if len(self._effect_layouts) >= encoding.LAYOUTS_MAX:
                self._effect_layouts.clear()
            effect, length = key
            shape = encoding.shape(
                effect, CLIENT, {"todoku.effect": effect}, flags=encoding.SAMPLED
            )
            if length:
                shape += encoding.head_of_text("todoku.cause", length)
            head = encoding.head(encoding.IDS_LENGTH + len(shape) + length) + TRACE_ID
            form = f"<{len(head)}s16s2s8s2s8sBQBQ{len(shape)}s{length}s"
            found = self._effect_layouts[key] = Struct(form).pack, head, shape
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


def _traceparent_in(body: bytes) -> str:
    """Return the traceparent of an encoded event; an empty text if it has none of version 00."""
    at = body.find(b'"traceparent":"00-', BYTES_BEFORE_TRACEPARENT) + 15
    return body[at : at + TRACEPARENT_LENGTH].decode("latin-1") if at >= 15 else ""


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
    """The spans of a transaction, encoded without their times while it decides, and written before its
    commit."""

    __slots__ = (
        *("_began", "_commands", "_layouts", "_linked", "_parents", "_spans", "_tracer"),
        "_without_span_at",
    )

    def __init__(self, tracer: ServiceTracer) -> None:
        self._tracer, self._parents, self._layouts = tracer, tracer.parents, tracer.layouts
        self._began = time_ns()
        self._spans: list[bytes] = []
        self._without_span_at = 0
        self._linked: list[tuple[str, str]] = []
        self._commands: list[str] = []

    def command(self, context: Context) -> None:
        if context.traceparent is not None:
            self._commands.append(context.traceparent)

    def event(self, envelope: Envelope, subject: str, attempt: int = 1) -> Context:
        traceparent = envelope.traceparent
        if (
            traceparent is None
            or attempt > 1
            or not self._parents
            or envelope.tracestate is not None
            or len(traceparent) != TRACEPARENT_LENGTH
            or traceparent[54] not in ODD
        ):
            return self._other_event(envelope, subject, attempt)
        message_id, key = envelope.id, envelope.subject
        found = self._layouts.get(subject)
        if found is None or len(message_id) != found[0] or len(key) != found[1]:
            found = self._tracer.event_layout(subject, len(message_id), len(key))
            if found is None:
                return self._other_event(envelope, subject, attempt)
        _, _, pack, head, before_id, before_key, texts_length = found
        texts = f"{message_id}{before_key}{key}".encode()
        trace, parent = traceparent[3:35], traceparent[36:52]
        span = new_span_id()
        try:
            trace_id, parent_id = unhexlify(trace), unhexlify(parent)
        except ValueError:
            return self._other_event(envelope, subject, attempt)
        if len(texts) != texts_length:  # They are not ASCII.
            return self._other_event(envelope, subject, attempt)
        self._spans.append(
            pack(  # Not from tuples: that takes as long again.
                head,
                trace_id,
                SPAN_ID,
                unhexlify(span),
                PARENT_ID,
                parent_id,
                before_id,
                texts,
                LINK,
                trace_id,
                SPAN_ID,
                parent_id,
            )
        )
        return Context(envelope.actor, f"00-{trace}-{span}-01", None, envelope.sagaversion)

    def due(self, agenda: str, key: str, context: Context) -> Context:
        rest = self._tracer.due_shape(agenda) + encoding.text_attribute("todoku.key", key)
        return self._begin(context, key, rest, links=False)

    def failed(self, error: Exception) -> None:
        spans = self._spans
        if len(spans) != self._without_span_at:
            status = encoding.failure(type(error).__qualname__, "")
            spans[-1] = encoding.extended(spans[-1], status)

    def before_commit(self) -> None:
        spans, commands = self._spans, self._commands
        # Also what effects have left in memory: their results, now committed, refer to it.
        if spans or commands:
            unfinished = self._tracer.open.unfinished(commands) if commands else {}
            times = encoding.times(self._began, time_ns())
            encoded = times.join((*spans, b""))
            self._tracer.store.write(encoded, len(spans), unfinished)

    def committed(self, messages: int) -> None:
        linked = self._linked
        if linked or (messages and self._spans):
            links = b"".join([_link(*each) for each in linked[:LINKS_MAX]])
            if len(linked) > LINKS_MAX:
                links += encoding.dropped_links(len(linked) - LINKS_MAX)
            self._tracer.store.add(self._tracer.of_batch(self._began, messages, links))

    def _other_event(self, envelope: Envelope, subject: str, attempt: int) -> Context:
        """Begin to decide on an event that is not like most: it is repeated, or has no trace, or none that is
        sampled, or long texts, or batches only link."""
        if not self._parents and envelope.traceparent and is_sampled(envelope.traceparent):
            self._without_span_at = len(self._spans)
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
        self._without_span_at = len(self._spans)
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
            trace = unhexlify(trace_id)
            if links and parent:
                rest += encoding.link(trace, parent)
            if context.tracestate is not None:
                rest += encoding.trace_state(context.tracestate)
            self._spans.append(encoding.untimed(trace, unhexlify(span_id), parent, rest))
        child = f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"
        return _within(context, child)


class _Effect:
    """The span of an effect."""

    __slots__ = ("_began", "_effect", "_ids", "_tracer", "context")

    def __init__(self, tracer: ServiceTracer, effect: str, context: Context) -> None:
        self.context = context
        self._ids: tuple[bytes, bytes, bytes] | None = None
        traceparent = context.traceparent
        if traceparent is None or len(traceparent) != TRACEPARENT_LENGTH:
            return
        sampled = traceparent[54] in ODD
        trace, span = traceparent[3:35], new_span_id()
        child = f"00-{trace}-{span}-01" if sampled else f"00-{trace}-{span}-00"
        self.context = _within(context, child)
        enter_span(child)
        if sampled:
            try:
                self._ids = unhexlify(trace), unhexlify(traceparent[36:52]), unhexlify(span)
            except ValueError:
                return  # It came in a malformed traceparent.
            self._tracer, self._effect, self._began = tracer, effect, time_ns()

    def end(self, error: Exception | str | None) -> None:
        if self._ids is None:
            return
        trace_id, parent, span_id = self._ids
        began, ended = self._began, time_ns()
        cause = b"" if self.context.cause is None else self.context.cause.encode()
        pack, head, shape = self._tracer.effect_layout((self._effect, len(cause)))
        if error is None:
            span = pack(
                head,
                trace_id,
                SPAN_ID,
                span_id,
                PARENT_ID,
                parent,
                BEGAN,
                began,
                ENDED,
                ended,
                shape,
                cause,
            )
            self._tracer.store.add(span)
            return
        kind = error if isinstance(error, str) else type(error).__qualname__
        rest = shape + cause + encoding.failure(kind, "")
        self._tracer.store.add(encoding.span(trace_id, span_id, parent, began, ended, rest))


def _within(context: Context, traceparent: str) -> Context:
    """Return a context with another traceparent."""
    return Context(
        context.actor, traceparent, context.tracestate, context.saga_version, context.cause
    )

"""The spans of a batch, an effect and a publish, as a service's tracer makes them."""

from collections.abc import Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from telemetry.receiver import attributes, decode
from todoku.engine import OutboxRow
from todoku.events import Context, Envelope
from todoku.events.envelope import encode
from todoku.telemetry.store import SpanStore
from todoku.telemetry.tracer import LINKS_MAX, ServiceTracer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


def event(key: str, traceparent: str | None = SAMPLED, tracestate: str | None = None) -> Envelope:
    return Envelope(
        specversion="1.0",
        id=f"id of {key}",
        source="orders",
        type="OrderCreatedEvent",
        subject=key,
        time=datetime(2026, 1, 1, tzinfo=UTC),
        traceparent=traceparent,
        tracestate=tracestate,
        data=msgspec.Raw(b"{}"),
    )


@pytest.fixture
def tracer(tmp_path: Path) -> ServiceTracer:
    return ServiceTracer("inventory", SpanStore(tmp_path, "inventory"), lambda _: True)


def exported(tracer: ServiceTracer) -> list[Span]:
    batch = tracer.store.take()
    if batch is None:
        return []
    spans = decode(batch.read())
    tracer.store.done(batch)
    return spans


def call(tracer: ServiceTracer, traceparent: str) -> tuple[Context, trace.SpanContext]:
    """Return the context of a call's result, and what a plug-in sees meanwhile, in a task of its own."""

    def in_task() -> tuple[Context, trace.SpanContext]:
        span = tracer.effect(object(), Context(traceparent=traceparent))
        seen = trace.get_current_span().get_span_context()
        span.end(None)
        return span.context, seen

    return copy_context().run(in_task)


def errors(spans: Sequence[Span]) -> dict[str, str | None]:
    """Return the errors of decisions, by the keys that they are about."""
    found = [attributes(span) for span in spans]
    return {each["cloudevents.event_subject"]: each.get("error.type") for each in found}


def test_texts_of_any_length_and_alphabet_are_told(tracer: ServiceTracer) -> None:
    keys = ["1", "注文", "x" * 300]
    spans = tracer.batch()
    contexts = [spans.event(event(key), "orders.created") for key in keys]
    spans.before_commit()
    found = exported(tracer)
    assert [attributes(span)["cloudevents.event_subject"] for span in found] == keys
    assert [attributes(span)["messaging.message.id"] for span in found] == [
        f"id of {key}" for key in keys
    ]
    for span, context in zip(found, contexts, strict=True):
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
        assert context == Context(traceparent=f"00-{TRACE}-{span.span_id.hex()}-01")


def test_only_the_decision_that_was_begun_last_has_failed(tracer: ServiceTracer) -> None:
    spans = tracer.batch()
    for key, attempt in (("1", 1), ("2", 2), ("3", 1)):
        spans.event(event(key, tracestate="a=b" if key == "3" else None), "orders.created", attempt)
        if key != "3":
            spans.failed(ValueError(key))
    spans.event(event("4", UNSAMPLED), "orders.created")
    spans.failed(KeyError("has no span"))
    spans.event(event("5"), "orders.created")
    spans.failed(TypeError("5"))
    spans.before_commit()
    found = {"1": "ValueError", "2": "ValueError", "3": None, "5": "TypeError"}
    assert errors(exported(tracer)) == found


@pytest.mark.parametrize("ids", ["x" * 49, f"{TRACE}-{PARENT[:14]}  ", " " * 49])
def test_malformed_traceparent_of_another_publisher_has_no_span(
    ids: str, tracer: ServiceTracer
) -> None:
    spans = tracer.batch()
    for key, traceparent in (("1", f"00-{ids}-01"), ("2", SAMPLED), ("3", f"00-{ids}-01")):
        spans.event(event(key, traceparent), "orders.created")
    spans.failed(ValueError("3"))
    spans.before_commit()
    _, seen = call(tracer, f"00-{ids}-01")
    assert seen.is_valid == ids.startswith(TRACE)
    rows = [
        OutboxRow(n, "orders.created", encode(event("4", f"00-{each}-01")))
        for n, each in enumerate((ids, f"{TRACE}-{PARENT}"))
    ]
    tracer.published(rows, 0.1)
    decided, sent = exported(tracer)
    assert errors([decided]) == {"2": None}
    assert [link.span_id.hex() for link in sent.links] == [PARENT]


def test_publish_counts_the_links_that_it_does_not_have(tracer: ServiceTracer) -> None:
    bodies = [encode(event("1", SAMPLED)), encode(event("2", UNSAMPLED)), encode(event("3", None))]
    rows = [OutboxRow(n, "orders.created", bodies[n % 3]) for n in range(3 * LINKS_MAX + 6)]
    tracer.published(rows, 0.1)
    (sent,) = exported(tracer)
    assert (len(sent.links), sent.dropped_links_count) == (LINKS_MAX, 2)
    assert attributes(sent)["messaging.batch.message_count"] == len(rows)
    tracer.published(rows[1:3], 0.1)
    assert exported(tracer) == []


def test_plug_in_sees_the_span_of_its_call(tracer: ServiceTracer) -> None:
    for parent, sampled in ((SAMPLED, True), (UNSAMPLED, False)):
        context, seen = call(tracer, parent)
        ids = f"00-{seen.trace_id:032x}-{seen.span_id:016x}-{seen.trace_flags:02x}"
        assert ids == context.traceparent
        assert (seen.is_valid, seen.trace_flags.sampled) == (True, sampled)


def test_batch_that_only_links_has_the_ids_of_its_messages(tmp_path: Path) -> None:
    tracer = ServiceTracer("a", SpanStore(tmp_path, "a"), lambda _: True, parents=False)
    spans, keys = tracer.batch(), [f"注文 {n}" for n in range(LINKS_MAX + 2)]
    for key in keys:
        assert spans.event(event(key), "orders.created") == Context(traceparent=SAMPLED)
    spans.failed(ValueError("has no span"))
    spans.event(event("unsampled", UNSAMPLED), "orders.created")
    spans.before_commit()
    spans.committed(len(keys))
    (batch,) = exported(tracer)
    found = [attributes(link)["messaging.message.id"] for link in batch.links]
    assert found == [f"id of {key}" for key in keys[:LINKS_MAX]]
    assert {(link.trace_id.hex(), link.span_id.hex()) for link in batch.links} == {(TRACE, PARENT)}
    assert batch.dropped_links_count == 2

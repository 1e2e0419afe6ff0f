"""What a plug-in, such as a carrier, sees of the span of its call: OpenTelemetry's current span.

An instrumented HTTP client sends its context along, and the spans that a plug-in makes are its children.
"""

from opentelemetry import context, trace

from todoku.telemetry.parents import Parent


def enter_span(parent: Parent, span_id: int) -> None:
    """Make a span the current one of the task that runs."""
    current = trace.SpanContext(
        trace_id=int(parent.trace, 16),
        span_id=span_id,
        is_remote=False,
        trace_flags=trace.TraceFlags(int(parent.sampled)),
    )
    context.attach(trace.set_span_in_context(trace.NonRecordingSpan(current)))

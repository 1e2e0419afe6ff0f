"""What a plug-in, such as a carrier, sees of the span of its call: OpenTelemetry's current span.

An instrumented HTTP client sends its context along, and the spans that a plug-in makes are its children.
"""

from opentelemetry import context, trace

from todoku.telemetry.parents import is_sampled, parent_of

(_SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, context.Context())


class CallSpan(trace.NonRecordingSpan):
    """The span of a call, by its traceparent. Its `SpanContext` is made when somebody asks: most calls are
    over before anybody does."""

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent

    def get_span_context(self) -> trace.SpanContext:
        """Return the ids that the children of this span need; invalid ones of a malformed traceparent."""
        ids = parent_of(self._traceparent)
        if ids is None:
            return trace.INVALID_SPAN_CONTEXT
        return trace.SpanContext(
            trace_id=int.from_bytes(ids[:16]),
            span_id=int.from_bytes(ids[16:]),
            is_remote=False,
            trace_flags=trace.TraceFlags(int(is_sampled(self._traceparent))),
        )

    def __repr__(self) -> str:
        return f"CallSpan({self._traceparent})"


def enter_span(traceparent: str) -> None:
    """Make a span the current one of the task that runs."""
    # As `set_span_in_context` does, which copies what there is three times.
    found: dict[str, object] = {_SPAN_KEY: CallSpan(traceparent)}
    if current := context.get_current():
        found = current | found
    context.attach(context.Context(found))

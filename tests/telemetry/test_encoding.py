"""What we encode is what the official package decodes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from telemetry.receiver import attributes, decode
from todoku.telemetry import encoding

ids = st.binary(min_size=8, max_size=8)
values = st.one_of(
    st.text(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text()),
)


@settings(max_examples=30)
@given(
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=ids,
    parent=st.one_of(st.just(b""), ids),
    began=st.integers(0, 2**64 - 1),
    name=st.text(),
    found=st.dictionaries(st.text(), values, max_size=5),
)
def test_span_is_decoded_as_it_was_encoded(
    trace_id: bytes,
    span_id: bytes,
    parent: bytes,
    began: int,
    name: str,
    found: dict[str, encoding.Value],
) -> None:
    rest = encoding.shape(name, encoding.CONSUMER, found)
    encoded = encoding.span(trace_id, span_id, parent, began, began, rest)
    (span,) = decode(encoded)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (trace_id, span_id, parent)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (began, began)
    assert (span.name, span.kind, span.flags) == (name, 5, 0x301)
    assert attributes(span) == found
    ((tag, content),) = encoding.records(encoded)
    assert (tag, encoding.span_id_of(content)) == (encoding.SPAN, span_id)


@settings(max_examples=30)
@given(text=st.text(max_size=300))
def test_text_attribute_is_decoded_as_it_was_encoded(text: str) -> None:
    rest = encoding.text_attribute("url.path", text) + encoding.trace_state("a=b")
    (span,) = decode(encoding.span(bytes(16), bytes(8), b"", 1, 2, rest))
    assert (attributes(span), span.trace_state) == ({"url.path": text}, "a=b")


def test_links_and_failure_are_decoded_as_they_were_encoded() -> None:
    about = encoding.link_attribute(encoding.text_attribute("messaging.message.id", "id"))
    rest = encoding.link(b"t" * 16, b"s" * 8, about) + encoding.dropped_links(300)
    rest += encoding.failure("TimeoutError", "too slow")
    (span,) = decode(encoding.span(bytes(16), bytes(8), b"", 1, 2, rest))
    (link,) = span.links
    assert (link.trace_id, link.span_id) == (b"t" * 16, b"s" * 8)
    assert attributes(link) == {"messaging.message.id": "id"}
    assert span.dropped_links_count == 300
    assert (span.status.code, span.status.message) == (Status.STATUS_CODE_ERROR, "too slow")
    assert attributes(span) == {"error.type": "TimeoutError"}

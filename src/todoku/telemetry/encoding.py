"""Encode spans for OTLP: the few fields of opentelemetry-proto's `trace.proto` and `common.proto`.

A span of the SDK costs about fifty microseconds until it is on the wire, and an order has eight of them. Here
a span is one `struct.pack`, what all spans of its kind share is encoded once (its `shape`), and the tests
decode the result with the official package.
"""

from binascii import unhexlify
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

Value = str | bool | int | float | Sequence[str]

INTERNAL: Final = 1
SERVER: Final = 2
CLIENT: Final = 3
PRODUCER: Final = 4
CONSUMER: Final = 5

SAMPLED: Final = 0x101
SAMPLED_REMOTE: Final = 0x301
"""Flags of a span that is sampled: its parent is known to be of this process, or of another."""

SPAN: Final = b"\x12"
"""The tag of a span in ScopeSpans, with which each encoded span begins."""

UNFINISHED: Final = b"\x7a"
"""The tag of a span that has begun, to be exported only if its process ended before it."""

NO_PARENT: Final = b""

TRACE_ID: Final = b"\n\x10"
SPAN_ID: Final = b"\x12\x08"
PARENT_ID: Final = b'"\x08'
"""The tag and the length of an id, in a span; those of trace and span are the same in a link."""

BEGAN: Final = 0x39
ENDED: Final = 0x41
"""The tags of a span's times, in nanoseconds since 1970; `pack_time` encodes tag and time."""

LINK: Final = b"j\x1c\n\x10"
"""What goes before the trace id in a link without attributes; then come `b"\\x12\\x08"` and the span id."""

LINK_LENGTH: Final = 30

IDS_OF_ROOT_LENGTH: Final = 46
"""How many bytes ids and times of a span without a parent have."""

IDS_LENGTH: Final = 56
"""How many bytes ids and times of a span with a parent have."""

TIME_LENGTH: Final = 9
TIMES_LENGTH: Final = 18

LAYOUTS_MAX: Final = 4096
"""How many layouts of spans are kept: one for each kind, and each length of its texts."""

_DIGITS: Final = tuple(bytes((n,)) for n in range(0x80))
_CONTINUED: Final = tuple(bytes((n | 0x80,)) for n in range(0x80))
"""The digits of a number in base 128: the last one, and those before."""

_root = Struct("<2s16s2s8sBQBQ").pack
_child = Struct("<2s16s2s8s2s8sBQBQ").pack
_link = Struct("<2s16s2s8s")
_plain_link = Struct("<4s16s2s8s").pack
_times = Struct("<BQBQ").pack
pack_time = Struct("<BQ").pack
_double = Struct("<Bd").pack
_flags = Struct("<HI").pack


def span(
    trace_id: bytes, span_id: bytes, parent: bytes, began: int, ended: int, rest: bytes
) -> bytes:
    """Return a span of ScopeSpans. The times are in nanoseconds since 1970; `rest` is its shape and its own
    attributes, links and status."""
    if not parent:
        ids = _root(TRACE_ID, trace_id, SPAN_ID, span_id, BEGAN, began, ENDED, ended)
    else:
        ids = _child(
            *(TRACE_ID, trace_id, SPAN_ID, span_id, PARENT_ID, parent),
            *(BEGAN, began, ENDED, ended),
        )
    return b"".join((SPAN, varint(len(ids) + len(rest)), ids, rest))


# The same in parts, for spans of which most bytes are the same each time. Most are of the form
#     head, TRACE_ID, trace id, SPAN_ID, span id, PARENT_ID, id of the parent, times, rest


def head(length: int, tag: bytes = SPAN) -> bytes:
    """Return what goes before a span of so many bytes."""
    return tag + varint(length)


def times(began: int, ended: int) -> bytes:
    """Return the times of a span, in nanoseconds since 1970."""
    return _times(BEGAN, began, ENDED, ended)


def untimed(trace_id: bytes, span_id: bytes, parent: bytes, rest: bytes) -> bytes:
    """Return a span without its times, which have to follow it: many spans may share them."""
    if parent:
        rest = PARENT_ID + parent + rest
    content = b"".join((TRACE_ID, trace_id, SPAN_ID, span_id, rest))
    return head(len(content) + TIMES_LENGTH) + content


def extended(untimed_span: bytes, rest: bytes) -> bytes:
    """Return such a span with more attributes, or a status."""
    ((tag, content),) = records(untimed_span + bytes(TIMES_LENGTH))
    return head(len(content) + len(rest), tag) + content[:-TIMES_LENGTH] + rest


def ended(at: int) -> bytes:
    """Return the time at which a span ended."""
    return pack_time(ENDED, at)


def span_id_of(body: bytes) -> bytes:
    """Return the id of an encoded span, without its tag and length."""
    return body[20:28]


def shape(
    name: str, kind: int, attributes: Mapping[str, Value], *, flags: int = SAMPLED_REMOTE
) -> bytes:
    """Return what all spans of a kind have in common."""
    fixed = b"".join(attribute(key, value) for key, value in attributes.items())
    return _text(5, name) + _varint(6, kind) + fixed + _flags(0x0185, flags)


def attribute(key: str, value: Value) -> bytes:
    """Return an attribute of a span."""
    return _message(9, key_value(key, value))


def text_attribute(key: str, value: str) -> bytes:
    """Return an attribute of a span with a text that is another one each time."""
    text = value.encode()
    return head_of_text(key, len(text)) + text


@lru_cache(maxsize=4096)
def head_of_text(key: str, length: int) -> bytes:
    """Return an attribute without its text, which has so many bytes."""
    encoded = attribute(key, "x" * length)
    return encoded[: len(encoded) - length]


@lru_cache(maxsize=1024)
def head_of_list(key: str, length: int) -> bytes:
    """Return an attribute that is a list of one text, without the text, which has so many bytes."""
    encoded = attribute(key, ["x" * length])
    return encoded[: len(encoded) - length]


def link(trace_id: bytes, span_id: bytes, attributes: bytes = b"") -> bytes:
    """Return a link of a span, with attributes from `link_attribute`."""
    if not attributes:
        return _plain_link(LINK, trace_id, SPAN_ID, span_id)
    ids = _link.pack(TRACE_ID, trace_id, SPAN_ID, span_id)
    return b"j" + varint(_link.size + len(attributes)) + ids + attributes


def links(traceparents: Sequence[str]) -> bytes:
    """Return the links to the spans of these traceparents. Those that are malformed or not sampled are left
    out."""
    text = "".join(traceparents)
    if text.endswith("-01"):
        # In hexadecimal digits, too, are the tags and lengths of the link, its trace id and its span id.
        digits = text[3:-3].replace("-0100-", "6a1c0a10").replace("-", "1208")
        try:
            found = unhexlify("6a1c0a10" + digits)
        except ValueError:
            found = b""
        if len(found) == LINK_LENGTH * len(traceparents):
            return found
    return b"".join([links([each]) for each in traceparents]) if len(traceparents) > 1 else b""


def link_attribute(of_span: bytes) -> bytes:
    """Return an attribute of a span as one of a link: it differs in its tag."""
    return b'"' + of_span[1:]


def dropped_links(count: int) -> bytes:
    """Return the field that tells how many links a span does not have."""
    return _varint(14, count)


def trace_state(text: str) -> bytes:
    """Return the W3C tracestate of a span."""
    return _text(3, text)


def failure(error: str, description: str) -> bytes:
    """Return the status of a span that has failed, and its error.type."""
    return attribute("error.type", error) + _message(15, _text(2, description) + _varint(3, 2))


def key_value(key: str, value: Value) -> bytes:
    """Return a KeyValue."""
    return _text(1, key) + _message(2, _any_value(value))


def request(resource: Mapping[str, Value], scope: str, version: str) -> tuple[bytes, bytes]:
    """Return the resource and the scope of an ExportTraceServiceRequest, for its `beginning`."""
    fields = b"".join(_message(1, key_value(key, value)) for key, value in resource.items())
    return _message(1, fields), _message(1, _text(1, scope) + _text(2, version))


def beginning(head: tuple[bytes, bytes], size: int) -> bytes:
    """Return what goes before the spans of an ExportTraceServiceRequest, all of one resource and scope, and
    together of so many bytes."""
    resource, scope = head
    of_scope = b"\x12" + varint(len(scope) + size)
    length = len(resource) + len(of_scope) + len(scope) + size
    return b"".join((b"\n", varint(length), resource, of_scope, scope))


def records(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield the tag and the content of each record of this form; what follows a torn one is left out."""
    at, end = 0, len(data)
    while at < end:
        tag, length, shift, start = data[at : at + 1], 0, 0, at + 1
        while start < end:
            byte = data[start]
            start += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        else:
            return
        at = start + length
        if at > end:
            return
        yield tag, data[start:at]


def varint(number: int) -> bytes:
    """Return a number of at least 0 in base 128, the lowest digit first."""
    if number < 0x80:
        return _DIGITS[number]
    if number < 0x4000:
        return _CONTINUED[number & 0x7F] + _DIGITS[number >> 7]
    return _CONTINUED[number & 0x7F] + varint(number >> 7)


def _any_value(value: Value) -> bytes:
    match value:
        case bool():
            return _varint(2, value)
        case int():
            return _varint(3, value & 2**64 - 1)
        case float():
            return _double(0x21, value)
        case str():
            return _text(1, value)
    return _message(5, b"".join(_message(1, _any_value(each)) for each in value))


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())


def _message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def _varint(field: int, number: int) -> bytes:
    return varint(field << 3) + varint(number)

"""Decoding: unknown fields are ignored, unknown types are an error of their own, the rest is undecodable."""

import json
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from contracts.examples import SEALED
from todoku.contracts import UndecodableEvent, UnknownEventType, decode, encode, read_envelope

NAMES: Final = sorted(SEALED)
FULL: Final = [name for name in NAMES if name.endswith(".full")]

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def message(name: str = "OrderCreatedEvent.full") -> dict[str, Any]:
    """An example as a foreign JSON library sees it."""
    parsed: dict[str, Any] = json.loads(encode(SEALED[name][0]))
    return parsed


def wire(parsed: Any) -> bytes:
    return json.dumps(parsed).encode()


@pytest.mark.parametrize("name", NAMES)
def test_fields_that_this_version_does_not_know_are_ignored(name: str) -> None:
    parsed = message(name)
    parsed["tenant"] = "newer"
    parsed["data"]["giftWrap"] = {"colour": "red"}
    for item in parsed["data"].get("items", []):
        item["serialNumber"] = "4711"
    assert decode(wire(parsed))[1] == SEALED[name][1]


def _required_fields() -> list[Any]:
    cases = []
    for name in FULL:
        for field in msgspec.structs.fields(type(SEALED[name][1])):
            if field.required:
                cases.append(
                    pytest.param(name, field.encode_name, id=f"{name}-{field.encode_name}")
                )
    return cases


@pytest.mark.parametrize(("name", "field"), _required_fields())
def test_event_without_a_required_field_is_undecodable(name: str, field: str) -> None:
    parsed = message(name)
    del parsed["data"][field]
    with pytest.raises(UndecodableEvent, match=f"invalid .* payload: .*{field}"):
        decode(wire(parsed))


@pytest.mark.parametrize("name", FULL)
def test_event_with_a_field_of_another_type_is_undecodable(name: str) -> None:
    for field in message(name)["data"]:
        parsed = message(name)
        parsed["data"][field] = {"not": "that"}
        with pytest.raises(UndecodableEvent, match=r"invalid .* payload"):
            decode(wire(parsed))


@pytest.mark.parametrize("attribute", ["specversion", "id", "source", "type", "subject", "time"])
def test_envelope_without_a_required_attribute_is_undecodable(attribute: str) -> None:
    parsed = message()
    del parsed[attribute]
    with pytest.raises(UndecodableEvent, match=attribute):
        decode(wire(parsed))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("id", 7),
        ("source", None),
        ("time", "yesterday"),
        ("time", 1893456000),
        ("time", "2030-01-02T03:04:05"),
        ("data", None),
        ("data", "a text"),
        ("data", []),
    ],
)
def test_envelope_with_an_attribute_of_another_type_is_undecodable(
    attribute: str, value: object
) -> None:
    """A time without a zone is no instant."""
    with pytest.raises(UndecodableEvent):
        decode(wire(message() | {attribute: value}))


@pytest.mark.parametrize("attribute", ["id", "source", "subject", "type"])
@pytest.mark.parametrize("name", ["", "a\0b", "line\nfeed", "\x7f", "\x9f"])
def test_envelope_with_an_empty_name_or_a_control_character_is_undecodable(
    attribute: str, name: str
) -> None:
    """CloudEvents forbids both, and PostgreSQL cannot keep the character NUL."""
    with pytest.raises(UndecodableEvent, match="control character"):
        decode(wire(message() | {attribute: name}))


@pytest.mark.parametrize("version", ["0.3", "1.1", "1", ""])
def test_another_version_of_cloud_events_is_undecodable(version: str) -> None:
    with pytest.raises(UndecodableEvent, match=r"instead of '1\.0'"):
        decode(wire(message() | {"specversion": version}))


def test_envelope_about_another_order_than_its_data_is_undecodable() -> None:
    with pytest.raises(UndecodableEvent, match="its data about"):
        decode(wire(message() | {"subject": "0198c2f0-7b1a-7c3e-9d55-000000000000"}))


def test_unknown_type_is_an_error_of_its_own() -> None:
    """A newer version may know it, so it is worth waiting for."""
    with pytest.raises(UnknownEventType, match="PaymentTakenEvent"):
        decode(wire(message() | {"type": "PaymentTakenEvent", "data": {"anything": 1}}))


@pytest.mark.parametrize(
    "changes",
    [{"data": {"of": "another kind"}}, {"type": "PaymentTakenEvent"}, {"specversion": "1.1"}],
    ids=["data", "type", "version"],
)
def test_valid_envelope_of_an_undecodable_event_is_decoded(
    changes: dict[str, object],
) -> None:
    body = wire(message() | changes)
    with pytest.raises(UndecodableEvent):
        decode(body)
    assert read_envelope(body).id == message()["id"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: b"",
        lambda body: b"not JSON",
        lambda body: body[:-1],
        lambda body: body + b"{}",
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.replace(b"user123", b"user\xff"),
        lambda body: body.replace(b"prod001", b"\xc3\x28"),
        lambda body: body.replace(b"user123", b"\\ud800"),
        lambda body: b"[" * 100_000,
        lambda body: body.replace(b"13000", b"[" * 100_000),
    ],
    ids=[
        "empty",
        "text",
        "cut off",
        "two at once",
        "byte order mark",
        "not UTF-8 in the envelope",
        "not UTF-8 in the data",
        "half a surrogate pair",
        "bottomless",
        "bottomless data",
    ],
)
def test_bytes_that_are_not_json_in_utf_8_are_undecodable(spoil: Callable[[bytes], bytes]) -> None:
    body = spoil(encode(SEALED["OrderCreatedEvent.full"][0]))
    with pytest.raises(UndecodableEvent):
        decode(body)


@given(st.binary())
@example(b'"\xff"')
@example(b'{"specversion":"1.0","id":"\xff"}')
def test_any_bytes_are_decoded_or_raise_undecodable_event(body: bytes) -> None:
    with pytest.raises(UndecodableEvent):
        decode(body)


@given(
    name=st.sampled_from(NAMES),
    changes=st.dictionaries(
        st.sampled_from(["id", "source", "subject", "time", "type", "data", "actor"]), JSON
    ),
    fields=st.dictionaries(
        st.sampled_from(["orderId", "items", "userId", "totalAmount", "reason"]), JSON
    ),
)
def test_any_json_is_decoded_or_raises_undecodable_event(
    name: str, changes: dict[str, Any], fields: dict[str, Any]
) -> None:
    parsed = message(name)
    parsed["data"] |= fields
    try:
        envelope, event = decode(wire(parsed | changes))
    except UndecodableEvent:
        return
    assert envelope.subject == event.key

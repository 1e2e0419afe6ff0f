"""The OpenAPI documents are such that generators and tools for other languages take them."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import re2

from todoku.database import Database
from todoku.system import system
from todoku.web import Backend, openapi
from todoku.web.application import shared_operations
from todoku.web.fields import ALLOWED, PRODUCT_ID_PATTERN, is_product_id, to_portable
from web.edge import RecordingProcess, run_inline


def document(service: str) -> dict[str, Any]:
    """Return the document of a service, as it is served."""
    process = RecordingProcess(lambda _: None)
    backend = Backend(process=process, database=Database.in_memory(), run_read=run_inline)
    api = system[service].build_api(backend)
    api = msgspec.structs.replace(api, operations=[*api.operations, *shared_operations(backend)])
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi.document(api)))
    return decoded


def schemas(part: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema in a document."""
    if isinstance(part, list):
        for item in part:
            yield from schemas(item)
    if isinstance(part, dict):
        for name, item in part.items():
            if name in ("schema", "items") and isinstance(item, dict):
                yield item
            if name in ("properties", "schemas"):
                yield from item.values()
            if name in ("anyOf", "oneOf", "allOf", "prefixItems"):
                yield from item
            yield from schemas(item)


every_service = pytest.mark.parametrize("service", system.names)


@every_service
def test_every_pattern_compiles_in_re2(service: str) -> None:
    patterns = {schema["pattern"] for schema in schemas(document(service)) if "pattern" in schema}
    assert patterns
    assert patterns <= {to_portable(pattern) for pattern in ALLOWED}
    for pattern in patterns:
        re2.compile(pattern)


SAMPLES = [
    *(
        "",
        ".",
        "..",
        "...",
        "....",
        ".a",
        "..a",
        "a.",
        "a..b",
        "prod001",
        "a\n",
        "\n",
        "a\nb",
        "-",
        "_",
    ),
    *("JPY", "JPYX", "JP", "jpy", "JPY\n", "EUR ", "a b", "a/b", "é", "届", "\0", "a\0b", "\x01"),
    *("0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e", "0198C2F0-7B1A-7C3E-9D55-3F6A1C2B4D5E", "0198c2f0"),
    *(
        "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e\n",
        "5a0c2e91b7d4",
        "5a0c2e91b7d4\n",
        "x" * 200,
        "x" * 201,
    ),
]


@pytest.mark.parametrize("pattern", ALLOWED)
def test_pattern_means_the_same_in_re2_and_where_it_is_checked(pattern: str) -> None:
    documented, checked = re2.compile(to_portable(pattern)), re.compile(pattern)
    for sample in SAMPLES:
        assert bool(documented.search(sample)) == bool(checked.search(sample)), sample


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("a", True),
        (".", False),
        ("..", False),
        ("...", True),
        (".a", True),
        ("..a", True),
        ("", False),
        ("x" * 255, True),
        ("x" * 256, False),
        ("届" * 255, True),
        ("a\n", False),
        ("a/b", True),
        ("../a", True),
        ("a b", True),
        (" a", False),
        ("a ", False),
        ("a%2Fb?c#d&e", True),
        ("キーボード 1/2", True),
        ("a\x7fb", False),
        ("\x85", False),
        ("\xa0a", False),
    ],
)
def test_product_ids_are_all_printable_texts_but_the_names_of_folders(
    text: str, valid: bool
) -> None:
    assert is_product_id(text) is valid
    assert valid is (bool(re2.search(to_portable(PRODUCT_ID_PATTERN), text)) and len(text) <= 255)


@every_service
def test_every_integer_has_a_format_that_holds_its_values(service: str) -> None:
    integers = [schema for schema in schemas(document(service)) if schema.get("type") == "integer"]
    assert integers
    for schema in integers:
        small = schema.get("maximum", 2**53 - 1) < 2**31
        assert schema["format"] == ("int32" if small else "int64")


@every_service
def test_every_schema_has_a_type(service: str) -> None:
    """RapiDoc shows `missing-type-info` otherwise; it shows an empty schema as `any`."""
    known = {"type", "$ref", "const", "anyOf", "oneOf", "allOf"}
    for schema in schemas(document(service)):
        assert not schema or known & schema.keys(), schema


@pytest.mark.parametrize("text", ["a\u3000b", "a\u200bb", "a\u2028b", "\ufdd0"])
def test_product_id_is_one_that_the_key_of_an_event_can_be(text: str) -> None:
    assert not is_product_id(text)

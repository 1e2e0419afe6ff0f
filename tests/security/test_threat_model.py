"""The threat model names tests that exist, and a test for every row."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest

from todoku.system import system
from todoku.web import Backend
from todoku.web.application import shared_operations
from todoku.web.openapi import document

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ADDRESS = re.compile(r"(?i)(url|uri|href|webhook|callback|endpoint|host|link)\b")


@cache
def functions_of(file: str) -> set[str]:
    """Return the names of the functions in a file, in its classes too."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef, ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize(("file", "test"), NAMED, ids="::".join)
def test_named_test_exists(file: str, test: str) -> None:
    assert (ROOT / file).exists()
    assert test in functions_of(file)


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "shown by" not in line]
    assert len(rows) >= 20
    for row in rows:
        assert "::test_" in row, row


def test_every_risk_of_the_owasp_list_has_a_row() -> None:
    found = re.findall(r"^\| API(\d+):2023 ", PAGE, re.MULTILINE)
    assert found == [str(number) for number in range(1, 11)]


def names_in(schema: Any) -> set[str]:
    """Return every name of a property, and every format, in a part of an OpenAPI document."""
    if isinstance(schema, list):
        return set().union(*map(names_in, schema))
    if not isinstance(schema, dict):
        return set()
    own = {*schema.get("properties", {})} | {str(schema.get("format", ""))}
    return own.union(*map(names_in, schema.values()))


@pytest.mark.parametrize("service", system.names)
def test_no_request_names_an_address_that_is_called(service: str) -> None:
    """In its body or its parameters; the messages that are parked hold what their publisher sent."""
    backend = cast(Backend, None)
    api = system[service].build_api(backend)
    schemas = document(api)["components"]["schemas"]
    for operation in [*api.operations, *shared_operations(backend)]:
        names = {*operation.query.__struct_fields__, *operation.path_parameters}
        if operation.body is not None and operation.body.__name__ in schemas:
            names |= names_in(schemas[operation.body.__name__])
        assert not [name for name in names if ADDRESS.search(name)], operation.id

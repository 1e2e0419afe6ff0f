"""Decoding of query strings."""

from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import msgspec

from todoku.web.explanations import explain
from todoku.web.problems import INVALID_PARAMETER, InputError, Problem

PARAMETERS_MAX: Final = 100
NOT_ENCODED: Final = "Must be percent-encoded UTF-8, as curl writes it with -G --data-urlencode."


def decode_query(kind: type[Any], query_string: bytes) -> Any:
    """Decode the query string. Raises `Problem`."""
    pairs = _pairs(query_string)
    given = dict(pairs)
    if len(given) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid_parameter(twice, "Given more than once: give it once.")
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        advice, path = explain(error, kind)
        raise invalid_parameter(path[0], advice) from error


def _pairs(query_string: bytes) -> list[tuple[str, str]]:
    parts = query_string.decode(errors="replace").split("&")
    if len(parts) > PARAMETERS_MAX:
        raise Problem(INVALID_PARAMETER, f"There are more than {PARAMETERS_MAX} parameters.")
    return [pair for part in parts for pair in _pair(part)]


def _pair(part: str) -> list[tuple[str, str]]:
    """Return a parameter and its value, or nothing for an empty part."""
    try:
        part.encode("ascii")
        return parse_qsl(part, keep_blank_values=True, errors="strict")
    except ValueError as error:
        name = unquote_plus(part.partition("=")[0])
        raise invalid_parameter(name, NOT_ENCODED) from error


def invalid_parameter(name: str, detail: str) -> Problem:
    """Return the problem that a parameter is invalid."""
    return Problem(
        INVALID_PARAMETER, f"{name}: {detail}", errors=[InputError(detail, parameter=name)]
    )

"""Decoding of query strings."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from msgspec.inspect import DateTimeType, Type, VarTupleType

from todoku.web.explanations import NO_TIME, explain
from todoku.web.parameter_types import parameter_types
from todoku.web.problems import INVALID_PARAMETER, InputError, Problem

PARAMETERS_MAX: Final = 100
NOT_ENCODED: Final = "Must be percent-encoded UTF-8, as curl writes it with -G --data-urlencode."


def decode_query(kind: type[Any], query_string: bytes) -> Any:
    """Decode the query string. Raises `Problem`."""
    given = _values(_pairs(query_string), parameter_types(kind))
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        advice, path = explain(error, kind)
        raise invalid_parameter(path[0], advice) from error


def _values(
    pairs: Iterable[tuple[str, str]], types: Mapping[str, Type]
) -> dict[str, str | list[str]]:
    """Return the values by parameter: a list for one that is repeatable. Raises `Problem`."""
    given: dict[str, str | list[str]] = {}
    for name, value in pairs:
        kind = types.get(name)
        if kind is None:
            raise invalid_parameter(name, "Unknown parameter: remove it, or correct its name.")
        if isinstance(kind, VarTupleType):
            given[name] = [*given.get(name, ()), value]
        elif name in given:
            raise invalid_parameter(name, "Given more than once: give it once.")
        elif isinstance(kind, DateTimeType) and _is_number(value):
            raise invalid_parameter(name, NO_TIME)  # It would be taken for seconds since 1970.
        else:
            given[name] = value
    return given


_is_number = re.compile(r"[-+0-9.eE]*\Z").match


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

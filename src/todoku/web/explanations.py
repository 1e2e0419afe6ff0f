"""Translate decoder errors into advice for clients."""

import re
from typing import Any, Final

import msgspec
from msgspec.inspect import EnumType, LiteralType

from todoku.web.fields import ALLOWED
from todoku.web.parameter_types import parameter_types, value_types

KINDS: Final = {
    "int": "a whole number",
    "float": "a number with a fraction or an exponent",
    "str": "a text",
    "bool": "true or false",
    "datetime": "a time as in RFC 3339",
    "null": "null",
    "array": "a list",
    "object": "an object",
}
LENGTHS: Final = {"array": "item", "str": "character"}
BOUNDS: Final = {">=": "at least", "<=": "at most"}
NO_TIME: Final = "Must be a time as in RFC 3339, with an offset: 2030-01-02T03:04:05Z."
PATTERNS: Final = {repr(pattern): words for pattern, words in ALLOWED.items()}


def explain(error: msgspec.ValidationError, kind: type[Any]) -> tuple[str, tuple[str, ...]]:
    """Return advice for a validation error of this type, and the path to the field."""
    message, _, path = str(error).partition(" - at `$")
    names = re.findall(r"[^.\[\]`]+", path)
    if match := re.fullmatch(r"Object (contains unknown|missing required) field `(.*)`", message):
        names.append(match[2])
    if message.startswith("Invalid enum value"):
        return f"Must be one of {', '.join(_choices(kind, names[0]))}.", tuple(names)
    return _advice(message), tuple(names)


def _choices(kind: type[Any], name: str) -> list[str]:
    """Return the values of the enumeration in the field with this name."""
    [found] = value_types(parameter_types(kind)[name])
    if isinstance(found, LiteralType):
        return sorted(map(str, found.values))
    assert isinstance(found, EnumType)
    return [str(value) for value in found.cls]


def _advice(message: str) -> str:
    if message.startswith("Object contains unknown field"):
        return "Unknown field: remove it, or correct its name."
    if message.startswith("Object missing required field"):
        return "Missing: add it."
    if match := re.fullmatch(r"Expected `str` matching regex (.*)", message):
        return f"Must be {PATTERNS[match[1]]}."
    if match := re.fullmatch(r"Expected `(\w+)` of length (>=|<=) (\d+)", message):
        plural = "" if match[3] == "1" else "s"
        return f"Must have {BOUNDS[match[2]]} {match[3]} {LENGTHS[match[1]]}{plural}."
    if match := re.fullmatch(r"Expected `int` (>=|<=) (-?\d+)", message):
        return f"Must be {BOUNDS[match[1]]} {match[2]}."
    if "datetime" in message and "got" not in message:
        return NO_TIME
    if match := re.fullmatch(r"Expected `(.+)`, got `(\w+)`", message):
        wanted = " or ".join(KINDS[kind] for kind in match[1].split(" | "))
        return f"Must be {wanted}, not {KINDS[match[2]]}."
    return f"{message}."

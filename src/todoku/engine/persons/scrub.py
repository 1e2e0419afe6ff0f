"""Erase personal values in stored JSON. Pure."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

ERASED: Final = "(erased)"
"""What stands in the place of the id of a person who was erased."""

ADDRESS: Final = "shippingAddress"
PERSON: Final = "userId"


def scrubbed(text: str | None, is_person: Callable[[str | None], bool]) -> str | None:
    """Return a JSON text without its addresses, without whom it is about, and without the names that are
    those of the person; reasons for cancellations, which customers write, are erased as well."""
    if text is None:
        return None
    return msgspec.json.encode(_scrub(msgspec.json.decode(text), is_person)).decode()


def _scrub(value: Any, is_person: Callable[[str | None], bool]) -> Any:
    if isinstance(value, list):
        return [_scrub(each, is_person) for each in value]
    if isinstance(value, str):
        return ERASED if is_person(value) else value
    if not isinstance(value, dict):
        return value
    erased = {name: _scrub(each, is_person) for name, each in value.items()}
    for name, replacement in ((PERSON, ERASED), (ADDRESS, "")):
        if isinstance(erased.get(name), str):
            erased[name] = replacement
    if "whole" in erased and isinstance(erased.get("reason"), str):
        erased["reason"] = ""
    return erased

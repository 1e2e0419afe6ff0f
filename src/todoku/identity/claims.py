"""What the claims of an access token permit."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from todoku.identity.caller import Caller
from todoku.identity.scopes import ROLES, expand, is_scope

OF_OPENID: Final = frozenset({"openid", "profile", "email", "address", "phone"})
"""Scopes that are about the ID token (OpenID Connect Core 1.0, section 5.4)."""

NAMES_MAX: Final = 500
"""How many scopes and roles of a token are looked at."""


class ClaimNames(msgspec.Struct, frozen=True):
    """The claims with the scopes, and with the roles, of a token; None for one that is not looked at."""

    scopes: str | None
    roles: str | None


def caller_of(claims: Mapping[str, Any], names: ClaimNames) -> Caller:
    """Return who sends a token with these claims: its subject, with what it permits here."""
    # A role has to be in the claim of roles: a scope called `service` may mean something else.
    named = filter(is_scope, _texts(claims, names.scopes))
    scopes = frozenset(named) - ROLES.keys() - OF_OPENID
    roles = [each for each in _texts(claims, names.roles) if each in ROLES]
    return Caller(claims["sub"], scopes | expand(roles), issuer=claims["iss"])


def _texts(claims: Mapping[str, Any], name: str | None) -> Iterable[str]:
    """Return the texts of a claim: a list, or one text with spaces between them."""
    value = None if name is None else _find(claims, name)
    if isinstance(value, str):
        value = value.split(" ")
    if not isinstance(value, list):
        return ()
    return [each for each in value[:NAMES_MAX] if isinstance(each, str)]


def _find(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim of this name, or the one to which the dots in it lead: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value

"""Ids that are always the same for the same fact. See docs/decisions/0001-fact-ids.md."""

import hashlib
from functools import lru_cache

_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The variant bits of RFC 9562 are 10: the first digit of the fourth group, for what the hash has there."""


def is_canonical_uuid(text: str) -> bool:
    """Return whether a text is a UUID as RFC 9562 writes it: 36 characters with four hyphens; no braces
    and no `urn:uuid:`."""
    return _uuid_bytes(text) is not None


def fact_id(key: str, name: str, n: int = 1) -> str:
    """Return the id of the `n`-th fact called `name` about the entity `key`.

    A UUIDv8 (RFC 9562, section 5.8). The first 48 bits come from the key alone (a UUID's own, which
    for a UUIDv7 are its time; of any other text a hash), so that rows of one key lie beside each other
    in an index. The rest is a SHA-1 of what it names, as in a UUIDv5.
    """
    entity, first = _entity(key)
    fact = entity.copy()
    fact.update(_suffix(name, n))
    digest = fact.hexdigest()
    return f"{first}-8{digest[1:4]}-{_VARIANTS[digest[4]]}{digest[5:8]}-{digest[8:20]}"


@lru_cache(maxsize=256)
def _suffix(name: str, n: int) -> bytes:
    """Return what is hashed of a fact after its entity. Most facts have one of a few names."""
    return f"{name}\0{n}".encode()


@lru_cache(maxsize=2048)  # Several facts about one entity, shortly after one another.
def _entity(key: str) -> tuple["hashlib._Hash", str]:
    """Return the hash that all facts about an entity continue, and how all of its ids begin."""
    octets = _uuid_bytes(key)
    if octets is None:
        # Longer than a UUID's 16 bytes, so that no text has the same facts as a UUID.
        octets = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
    first = octets[:6].hex()
    return hashlib.sha1(octets, usedforsecurity=False), f"{first[:8]}-{first[8:]}"


def _uuid_bytes(text: str) -> bytes | None:
    """Return the 16 bytes of a canonical UUID, None for any other text."""
    if len(text) != 36 or text[8:24:5] != "----":
        return None
    try:
        octets = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    return octets if len(octets) == 16 else None  # `fromhex` skips white space.

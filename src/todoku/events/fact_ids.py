"""Ids that are always the same for the same fact. See docs/decisions/0001-fact-ids.md."""

import hashlib
import re

_is_canonical = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}").fullmatch


def is_canonical_uuid(text: str) -> bool:
    """Return whether a text is a UUID as RFC 9562 writes it: 36 characters with four hyphens; no braces
    and no `urn:uuid:`."""
    return _is_canonical(text) is not None


def fact_id(key: str, name: str, n: int = 1) -> str:
    """Return the id of the `n`-th fact called `name` about the entity `key`.

    A UUIDv8 (RFC 9562, section 5.8). The first 48 bits come from the key alone (a UUID's own, which
    for a UUIDv7 are its time; of any other text a hash), so that rows of one key lie beside each other
    in an index. The rest is a SHA-1 of what it names, as in a UUIDv5.
    """
    if _is_canonical(key):
        entity = bytes.fromhex(key.replace("-", ""))
    else:
        # Longer than a UUID's 16 bytes, so that no text has the same facts as a UUID.
        entity = hashlib.sha256(key.encode(errors="surrogatepass")).digest()
    digest = hashlib.sha1(entity + f"{name}\0{n}".encode(), usedforsecurity=False).digest()
    octets = bytearray(entity[:6] + digest[:10])
    octets[6] = 0x80 | octets[6] & 0x0F
    octets[8] = 0x80 | octets[8] & 0x3F
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

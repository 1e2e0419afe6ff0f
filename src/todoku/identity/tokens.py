"""OIDC access tokens: JSON Web Tokens (RFC 7519, RFC 9068) that an issuer has signed."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
from joserfc import jws
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

ALGORITHMS: Final = {
    "RS256": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "EdDSA": ("OKP", "Ed25519"),
    "Ed25519": ("OKP", "Ed25519"),
}
"""The algorithms that a signature may have, with the type and the curve of their keys. Ed25519 is the name
that RFC 9864 gives to EdDSA with that curve."""

TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What the header `typ` may say: neither logout tokens nor anything else that an issuer signs."""

KEYS_MAX: Final = 100
RSA_BITS: Final = range(2048, 8193)
SAME_ID_MAX: Final = 4
"""How many keys of a set may have the same id: each of them is tried."""

SUBJECT_LENGTH_MAX: Final = 128
HEADER_LENGTH_MAX: Final = 8192


class Key(NamedTuple):
    """A public key, and the algorithms of the signatures that are verified with it."""

    public: RSAKey | ECKey | OKPKey
    algorithms: frozenset[str]


class TokenRefused(Exception):
    """A token is not valid; the text says why, to whoever has sent it."""


class KeyUnknown(TokenRefused):
    """A token names a key that the issuer did not have when its keys were read."""


class KeySetUnusable(Exception):
    """An issuer's key set (JWKS) has no key with which a token can be verified."""


class KeySet(NamedTuple):
    """The keys of an issuer by their id: public ones of the permitted algorithms."""

    by_id: Mapping[str | None, Sequence[Key]]
    source: bytes

    @property
    def size(self) -> int:
        """How many keys there are."""
        return sum(map(len, self.by_id.values()))


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a token has to say, and how far the clocks of issuer and service may differ."""

    issuer: str
    audience: str
    leeway_seconds: float


class _FixedAlgorithms(JWSRegistry):
    """Permits `ALGORITHMS`, whatever joserfc recommends, and ignores header fields that it does not know."""

    max_header_length = HEADER_LENGTH_MAX

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


_REGISTRY: Final = _FixedAlgorithms(strict_check_header=False)


def verify(token: str, keys: KeySet, expected: Expected, now: datetime) -> dict[str, Any]:
    """Return the claims of a token that one of these keys has signed, and that is valid now.

    Raises `TokenRefused`; `KeyUnknown` if the issuer may have a newer key.
    """
    try:
        signed = jws.extract_compact(token.encode(), registry=_REGISTRY)
        candidates = _candidates(signed.headers(), keys)
        if not any(
            jws.validate_compact(signed, key.public, registry=_REGISTRY) for key in candidates
        ):
            raise TokenRefused("The signature of the token is wrong.")
        claims = msgspec.json.decode(signed.payload, type=dict[str, Any])
    except (JoseError, ValueError, TypeError, RecursionError, msgspec.DecodeError) as error:
        raise TokenRefused("The credential is neither an API key nor a signed token.") from error
    _require_claims(claims, expected, now)
    return claims


def _candidates(header: Mapping[str, Any], keys: KeySet) -> Sequence[Key]:
    """Return the keys that may have signed a token: by its id, and by the type of its algorithm."""
    algorithm, kind = header.get("alg"), header.get("typ", "jwt")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise TokenRefused(f"The token is not signed with one of {', '.join(ALGORITHMS)}.")
    if "crit" in header or "b64" in header:
        raise TokenRefused("The token has header fields that have to be understood (crit, b64).")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise TokenRefused("The header typ does not say that this is an access token.")
    key_id = header.get("kid")
    if key_id is not None and not isinstance(key_id, str):
        raise TokenRefused("The id of the token's key is not a text.")
    if key_id is None:  # Permitted where there is no choice (RFC 7515, section 4.1.4).
        named: Sequence[Key] = [key for found in keys.by_id.values() for key in found]
        if len(named) > 1:
            raise TokenRefused("The token does not name its key (kid), and its issuer has several.")
    else:
        named = keys.by_id.get(key_id, ())
    if not named:
        raise KeyUnknown("The issuer has no such key.")
    fitting = [key for key in named if algorithm in key.algorithms]
    if not fitting:
        raise TokenRefused("The token's algorithm is not that of its key.")
    return fitting


def _require_claims(claims: dict[str, Any], expected: Expected, now: datetime) -> None:
    registry = JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=int(expected.leeway_seconds),
        iss={"essential": True, "value": expected.issuer},
        aud={"essential": True, "value": expected.audience},
        exp={"essential": True},
        sub={"essential": True},
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError as error:
        raise TokenRefused("The token has expired.") from error
    except MissingClaimError as error:
        raise TokenRefused(f"The token lacks {error.claim}.") from error
    except InvalidClaimError as error:
        raise TokenRefused(_REFUSED.get(error.claim or "", "A claim is invalid.")) from error
    subject = claims["sub"]
    if "\0" in subject or len(subject) > SUBJECT_LENGTH_MAX:
        raise TokenRefused(f"The subject is longer than {SUBJECT_LENGTH_MAX}, or has a NUL.")


_REFUSED: Final = {
    "iss": "The token is from another issuer.",
    "aud": "The token is for another audience.",
    "exp": "The claim exp is not a time.",
    "nbf": "The token is not valid yet.",
    "iat": "The token was issued in the future.",
    "sub": "The token has no subject.",
}


def read_key_set(document: bytes) -> KeySet:
    """Return the keys of a JWKS (RFC 7517) that can be used; others are left out. Raises `KeySetUnusable`."""
    try:
        listed = msgspec.json.decode(document, type=dict[str, Any])["keys"]
    except (msgspec.DecodeError, KeyError, UnicodeDecodeError) as error:
        raise KeySetUnusable("it is not a JSON object with `keys`") from error
    if not isinstance(listed, list) or len(listed) > KEYS_MAX:
        raise KeySetUnusable(f"`keys` is not a list, or has more than {KEYS_MAX}")
    by_id: dict[str | None, list[Key]] = {}
    for entry in listed:
        key = _read_key(entry)
        if key is not None:
            found = by_id.setdefault(entry.get("kid"), [])
            if len(found) < SAME_ID_MAX:
                found.append(key)
    if not by_id:
        raise KeySetUnusable(f"none of its {len(listed)} keys is for {', '.join(ALGORITHMS)}")
    return KeySet(by_id, document)


_KINDS: Final[Mapping[str, Any]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PUBLIC: Final = ("kty", "n", "e", "crv", "x", "y")


def _read_key(entry: Any) -> Key | None:
    """Return a key of a set, None if no token can be verified with it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str | None):
        return None
    kind = entry.get("kty")
    if not isinstance(kind, str) or kind not in _KINDS or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if kind == "RSA" and len(str(entry.get("n"))) * 6 < RSA_BITS.start:
        return None  # joserfc would warn of it
    try:
        key = _KINDS[kind].import_key({name: entry[name] for name in _PUBLIC if name in entry})
        algorithms = frozenset(each for each in ALGORITHMS if _fits(key, each, entry.get("alg")))
    except Exception:  # joserfc and cryptography raise many kinds for what is no key
        return None
    return Key(key, algorithms) if algorithms else None


def _fits(key: RSAKey | ECKey | OKPKey, algorithm: str, declared: Any) -> bool:
    """Return whether signatures with this algorithm are verified with a key that is `declared` for one."""
    kind, curve = ALGORITHMS[algorithm]
    if key.key_type != kind or key.get("crv") != curve:
        return False
    if isinstance(key, RSAKey) and key.public_key.key_size not in RSA_BITS:
        return False
    return declared is None or ALGORITHMS.get(declared) == (kind, curve)

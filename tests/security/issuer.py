"""An OIDC issuer for tests: it signs tokens, and serves its metadata and its keys on loopback."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from todoku.identity.tokens import _FixedAlgorithms
from web.edge import listening

RSA = RSAKey.generate_key(2048, {"kid": "rsa", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "ec", "use": "sig"})
OKP = OKPKey.generate_key("Ed25519", {"kid": "okp", "use": "sig"})
SIGNERS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": OKP, "Ed25519": OKP}


class _Anything(_FixedAlgorithms):
    """Signs whatever the header says."""

    def check_header(self, header: Any) -> None:
        """Accept every header."""


class Issuer:
    """Serves `document` as its keys, with `status`; `reads` counts how often they were read."""

    def __init__(self) -> None:
        self.address = ""
        self.status = 200
        self.reads = 0
        self.metadata: dict[str, Any] = {}
        self.publish(RSA, EC, OKP)

    def publish(self, *keys: Any) -> None:
        """Replace the keys by these."""
        self.document = json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()

    def claims(self, now: float, **more: Any) -> dict[str, Any]:
        """Return the claims of a valid token of ten minutes; those that are None are left out."""
        claims = {
            "iss": self.address,
            "aud": ["account", "todoku"],
            "sub": "alice",
            "iat": now,
            "exp": now + 600,
            "scope": "openid profile orders:create:own orders:read:own",
        }
        return {name: value for name, value in (claims | more).items() if value is not None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if self.status != 200:
            return Response(status_code=self.status, headers={"Location": "/elsewhere"})
        if request.url.path == "/.well-known/openid-configuration":
            metadata = {"issuer": self.address, "jwks_uri": f"{self.address}/keys"}
            return JSONResponse(metadata | self.metadata)
        self.reads += 1
        return Response(self.document, media_type="application/json")


@asynccontextmanager
async def issuing() -> AsyncIterator[Issuer]:
    """Run an issuer on a free port."""
    issuer = Issuer()
    async with listening(issuer) as (host, port):
        issuer.address = f"http://{host}:{port}"
        yield issuer


def sign(
    claims: Any, algorithm: str = "RS256", header: Mapping[str, Any] | None = None, key: Any = None
) -> str:
    """Return a token; fields of the header that are None are left out."""
    signer = key or SIGNERS[algorithm]
    fields = {"alg": algorithm, "kid": signer.kid, "typ": "at+jwt"} | dict(header or {})
    fields = {name: value for name, value in fields.items() if value is not None}
    return jws.serialize_compact(fields, json.dumps(claims).encode(), signer, registry=_Anything())


def forge(claims: Any, header: Mapping[str, Any], secret: bytes | None = None) -> str:
    """Return a token without a signature, or with one by HMAC and this secret."""
    signed = f"{_encode(header)}.{_encode(claims)}"
    signature = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _encode(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

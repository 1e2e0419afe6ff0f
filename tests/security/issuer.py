"""An OIDC issuer for tests: it signs tokens, and serves its metadata and its keys on loopback."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl, urlencode

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
        self.logins = Logins(self)
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
        request = Request(scope, receive)
        if request.method == "POST":
            form = dict(parse_qsl((await request.body()).decode(), keep_blank_values=True))
            authorization = request.headers.get("authorization", "")
            answer = self.logins.post(request.url.path, form, authorization)
        else:
            answer = self._answer(request)
        await answer(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        if self.status != 200:
            return Response(status_code=self.status, headers={"Location": "/elsewhere"})
        if request.url.path == "/.well-known/openid-configuration":
            metadata = {
                "issuer": self.address,
                "jwks_uri": f"{self.address}/keys",
                "authorization_endpoint": f"{self.address}/authorize",
                "token_endpoint": f"{self.address}/token",
                "revocation_endpoint": f"{self.address}/revoke",
            }
            return JSONResponse(metadata | self.metadata)
        if request.url.path == "/authorize":
            return self.logins.authorize(dict(request.query_params))
        self.reads += 1
        return Response(self.document, media_type="application/json")


class Logins:
    """The authorization code flow of an issuer, as strict as RFC 9700 wants it: a code is for one client, one
    address and one verifier, and is used once. Whoever comes is logged in as `person`, unless `denies`.

    `clients` are their secrets by their ids, None for a public one; `claims` is added to ID tokens.
    """

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self.person = "alice"
        self.denies = False
        self.clients: dict[str, str | None] = {"console": None, "other": None}
        self.claims: dict[str, Any] = {}
        self.scope = "openid orders:read"
        self.seconds = 600
        self.renews = True
        self.codes: dict[str, dict[str, str]] = {}
        self.refresh_tokens: set[str] = set()
        self.refreshed = 0
        self.asked: list[dict[str, str]] = []

    def authorize(self, query: dict[str, str]) -> Response:
        """Send the browser back with a code."""
        self.asked.append(query)
        if query["code_challenge_method"] != "S256" or query["response_type"] != "code":
            return Response(status_code=400)
        back = {"state": query["state"], "iss": self._issuer.address}
        if self.denies:
            back["error"] = "access_denied"
        else:
            back["code"] = self.code(query)
        return Response(
            status_code=303, headers={"Location": f"{query['redirect_uri']}?{urlencode(back)}"}
        )

    def code(self, query: dict[str, str]) -> str:
        """Return a code for what a browser has asked for."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return code

    def post(self, path: str, form: dict[str, str], authorization: str) -> Response:
        """Answer a client."""
        if not self._is_client(form, authorization):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        if path == "/revoke":
            self.refresh_tokens.discard(form["token"])
            return Response()
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.refresh_tokens:
                return JSONResponse({"error": "invalid_grant"}, status_code=400)
            self.refresh_tokens.remove(form["refresh_token"])
            self.refreshed += 1
            return self._tokens(form["client_id"], None)
        asked = self.codes.pop(form["code"], None)
        challenge = hashlib.sha256(form["code_verifier"].encode()).digest()
        if (
            asked is None
            or asked["client_id"] != form["client_id"]
            or asked["redirect_uri"] != form["redirect_uri"]
            or asked["code_challenge"] != base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        ):
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        return self._tokens(form["client_id"], asked["nonce"])

    def _tokens(self, client: str, nonce: str | None) -> Response:
        now = time.time()
        answer = {
            "token_type": "Bearer",
            "expires_in": self.seconds,
            "access_token": sign(
                self._issuer.claims(
                    now,
                    sub=self.person,
                    scope=self.scope,
                    exp=now + self.seconds,
                    jti=secrets.token_urlsafe(8),
                )
            ),
            "id_token": sign(
                self._issuer.claims(now, sub=self.person, aud=client, scope=None, nonce=nonce)
                | self.claims,
                header={"typ": "JWT"},
            ),
        }
        if self.renews:
            answer["refresh_token"] = secrets.token_urlsafe(16)
            self.refresh_tokens.add(answer["refresh_token"])
        return JSONResponse(answer)

    def _is_client(self, form: dict[str, str], authorization: str) -> bool:
        if form["client_id"] not in self.clients:
            return False
        secret = self.clients[form["client_id"]]
        expected = base64.b64encode(f"{form['client_id']}:{secret}".encode()).decode()
        return secret is None or authorization == f"Basic {expected}"


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

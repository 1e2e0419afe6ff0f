"""Log in and out at the console: `/session`, and whose credential a request of the page is forwarded with."""

from collections.abc import Mapping
from hmac import compare_digest
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import msgspec
import structlog
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope

from todoku.console.code_flow import CodeFlow, LoginRefused, Tokens
from todoku.console.cookies import LOGIN, LOGIN_SECONDS, SESSION, Browser, browser_of, cookie_of
from todoku.console.problems import CSRF_TOKEN_MISSING, SERVICE_UNREACHABLE
from todoku.console.sessions import Session, Sessions
from todoku.web.body import BODY_RECEIVED, Body, decode_body, read_body
from todoku.web.call import header_values
from todoku.web.forwarded import source_of
from todoku.web.hosts import SAFE_METHODS
from todoku.web.issuer_keys import IssuerUnavailable
from todoku.web.operations import Endpoint, ExactRoute, Limits
from todoku.web.problems import CONTENT_TYPE, UNKNOWN_ADDRESS, Problem
from todoku.web.reply import Reply

CSRF_HEADER: Final = b"x-csrf-token"
KEY_LENGTH_MAX: Final = 8_192
TARGET_LENGTH_MAX: Final = 2_000
NO_STORE: Final = {"Cache-Control": "no-store"}

log = structlog.get_logger(__name__)


class KeyLogin(Body, frozen=True):
    """The credential with which somebody logs in."""

    key: str


class SessionView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who is logged in in this browser, and how others can log in. `actor` is null if nobody is."""

    actor: str | None
    csrf_token: str | None
    issuer: bool


class Whoami(msgspec.Struct, frozen=True):
    """What a service says of a credential."""

    auth: str
    actor: str | None = None


class Identified(NamedTuple):
    """What the first service says of a credential: who has it, or the response that refuses it."""

    actor: str | None
    auth: str
    refusal: Response | None = None


_decoder: Final = msgspec.json.Decoder(KeyLogin)


class Logins:
    """Logs people in, with the credential that they give or that the issuer gives for them."""

    def __init__(
        self,
        sessions: Sessions,
        client: httpx.AsyncClient,
        whoami_at: str,
        *,
        limits: Limits,
        flow: CodeFlow | None = None,
        url: str | None = None,
        behind_proxy: bool = False,
    ) -> None:
        self._sessions = sessions
        self._client = client
        self._whoami_at = whoami_at
        self._limits = limits
        self._flow = flow
        self._url = url
        self._behind_proxy = behind_proxy

    @property
    def routes(self) -> list[ExactRoute]:
        """What the page calls, and where the issuer sends browsers."""
        return [
            ExactRoute(
                "/session",
                Endpoint({"GET": self._show, "POST": self._log_in, "DELETE": self._log_out}),
            ),
            ExactRoute("/session/login", Endpoint({"GET": self._go_to_issuer})),
            ExactRoute("/session/callback", Endpoint({"GET": self._come_back})),
        ]

    async def session_of(self, scope: Scope) -> Session | None:
        """Return the session whose cookie a request has, with a credential that is valid; None without one.

        Raises `Problem` if the request changes something and lacks the token of the session.
        """
        session = self._find(scope)
        if session is None:
            return None
        if scope["method"] not in SAFE_METHODS:
            require_csrf_token(scope, session)
        await self._renew(session)
        return None if session.ended.is_set() else session

    def refused(self, session: Session) -> None:
        """End a session whose credential is not valid any more."""
        self._sessions.end(session)

    async def wait_for_end(self, session: Session) -> None:
        """Return when the session has ended."""
        await self._sessions.wait_for_end(session)

    def _browser(self, scope: Scope) -> Browser:
        return browser_of(scope, self._url, behind_proxy=self._behind_proxy)

    def _find(self, scope: Scope) -> Session | None:
        session_id = cookie_of(scope, self._browser(scope).cookie_name(SESSION))
        return self._sessions.find(session_id) if session_id else None

    async def _renew(self, session: Session) -> None:
        """Replace the credential of a session in time; one that cannot be replaced now is used on."""
        async with session.renewing:
            renew_at, token = session.renew_at, session.refresh_token
            if self._flow is None or token is None or renew_at is None:
                return
            if self._sessions.clock() < renew_at:
                return
            try:
                found = await self._flow.refresh(token, session.subject)
            except IssuerUnavailable as error:
                log.warning("access_token_not_renewed", reason=str(error))
            except LoginRefused as refused:
                log.info("session_ended", actor=session.actor, reason=str(refused))
                self._sessions.end(session)
            else:
                self._sessions.replace_credential(
                    session, found.access_token, found.refresh_token, found.valid_seconds
                )

    async def _show(self, scope: Scope, receive: Receive) -> ASGIApp:
        return self._view(self._find(scope))

    async def _log_in(self, scope: Scope, receive: Receive) -> ASGIApp:
        """Begin a session with the credential in the body."""
        body = await read_body(
            dict(scope["headers"]),
            receive,
            bytes_max=min(self._limits.body_bytes_max, 2 * KEY_LENGTH_MAX),
            seconds_max=self._limits.body_seconds_max,
            complete=BODY_RECEIVED in scope,
        )
        key = decode_body(_decoder, body).key.strip()
        found = await self._identify(key, scope)
        if found.refusal is not None:
            return found.refusal
        if found.auth == "none" or found.actor is None:
            return self._view(None)
        self._end_old(scope)
        session_id, session = self._sessions.begin(found.actor, key)
        return self._view(session, self._browser(scope).keep(SESSION, session_id, "Strict"))

    async def _log_out(self, scope: Scope, receive: Receive) -> ASGIApp:
        """End the session, here and at the issuer."""
        session = self._find(scope)
        if session is not None:
            require_csrf_token(scope, session)
            token = session.refresh_token
            self._sessions.end(session)
            if self._flow is not None and token is not None:
                await self._flow.revoke(token)
        return self._view(None, self._browser(scope).forget(SESSION, "Strict"))

    async def _go_to_issuer(self, scope: Scope, receive: Receive) -> ASGIApp:
        """Send the browser to the issuer, with a cookie to come back with."""
        flow = self._require_flow()
        browser = self._browser(scope)
        target = safe_target(_parameters(scope).get("to", ""))
        try:
            address, sealed = await flow.begin(
                f"{browser.origin}{browser.prefix}/session/callback", target
            )
        except IssuerUnavailable as error:
            return self._failed("issuer", error)
        # Lax, since the browser brings it when the issuer sends it back.
        cookie = browser.keep(LOGIN, sealed, "Lax", LOGIN_SECONDS)
        return _redirect(address, [cookie])

    async def _come_back(self, scope: Scope, receive: Receive) -> ASGIApp:
        """Take the browser back from the issuer, and begin a session."""
        flow = self._require_flow()
        browser = self._browser(scope)
        forget = browser.forget(LOGIN, "Lax")
        sealed = cookie_of(scope, browser.cookie_name(LOGIN))
        try:
            tokens, target = await flow.finish(sealed, _parameters(scope))
            session_id = await self._begin(tokens, scope)
        except LoginRefused as refused:
            return self._failed(refused.code, refused, [forget])
        except IssuerUnavailable as error:
            return self._failed("issuer", error, [forget])
        except Problem as problem:
            return self._failed("service", problem, [forget])
        return _redirect(target, [forget, browser.keep(SESSION, session_id, "Strict")])

    async def _begin(self, tokens: Tokens, scope: Scope) -> str:
        found = await self._identify(tokens.access_token, scope)
        if found.refusal is not None or found.actor is None:
            raise LoginRefused("refused", "the services do not accept the access token")
        self._end_old(scope)
        session_id, _ = self._sessions.begin(
            found.actor,
            tokens.access_token,
            refresh_token=tokens.refresh_token,
            subject=tokens.subject,
            valid_seconds=tokens.valid_seconds,
        )
        return session_id

    async def _identify(self, credential: str, scope: Scope) -> Identified:
        """Ask the first service whose credential this is."""
        if not credential or not all("!" <= each <= "~" for each in credential):
            credential = "-"  # It is refused like every other that is unknown.
        headers = {
            "Authorization": f"Bearer {credential}",
            "Accept-Encoding": "identity",
            "X-Forwarded-For": source_of(scope),
        }
        try:
            response = await self._client.get(self._whoami_at, headers=headers)
            if response.status_code == httpx.codes.OK:
                found = msgspec.json.decode(response.content, type=Whoami)
                return Identified(found.actor, found.auth)
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            what = str(error) or type(error).__name__
            raise Problem(
                SERVICE_UNREACHABLE, f"{self._whoami_at} cannot be asked who this is: {what}."
            ) from error
        kept = {
            name: value
            for name, value in response.headers.items()
            if name in ("retry-after", "www-authenticate")
        }
        return Identified(
            None,
            "required",
            Response(
                response.content,
                status_code=response.status_code,
                headers={**kept, **NO_STORE, "Content-Type": CONTENT_TYPE},
            ),
        )

    def _end_old(self, scope: Scope) -> None:
        """End the session that the browser has: a login never goes on with an id from before (fixation)."""
        session = self._find(scope)
        if session is not None:
            self._sessions.end(session)

    def _require_flow(self) -> CodeFlow:
        if self._flow is None:
            raise Problem(
                UNKNOWN_ADDRESS, "Nobody logs in here by an issuer: see the settings oidc_…."
            )
        return self._flow

    def _view(self, session: Session | None, cookie: str | None = None) -> Reply:
        shown = SessionView(
            actor=session.actor if session else None,
            csrf_token=session.csrf_token if session else None,
            issuer=self._flow is not None,
        )
        return Reply(200, shown, {**NO_STORE, **({"Set-Cookie": cookie} if cookie else {})})

    def _failed(self, code: str, why: Exception, cookies: list[str] | None = None) -> Response:
        log.warning("login_failed", code=code, reason=str(why))
        return _redirect(f"/?login={code}", cookies or [])


def require_csrf_token(scope: Scope, session: Session) -> None:
    """Raise `Problem` unless a request repeats the token of its session."""
    given = header_values(scope, CSRF_HEADER)
    if len(given) != 1 or not compare_digest(given[0], session.csrf_token.encode()):
        raise Problem(
            CSRF_TOKEN_MISSING, "Send the header X-CSRF-Token with `csrfToken` of GET /session."
        )


def safe_target(written: str) -> str:
    """Return a path of the console that a link asks for, `/` if it leads anywhere else."""
    path = "/" + written.lstrip("/")
    harmless = path.isascii() and path.isprintable() and "\\" not in path and " " not in path
    if not harmless or len(path) > TARGET_LENGTH_MAX:
        return "/"
    parts = urlsplit(path)
    is_own = not parts.scheme and not parts.netloc and not parts.path.startswith("/session")
    return path if is_own else "/"


def _redirect(address: str, cookies: list[str]) -> Response:
    response = Response(status_code=303, headers=NO_STORE)
    response.headers["Location"] = quote(address, safe="/:?#[]@!$&'()*+,;=%-._~")
    for cookie in cookies:
        response.headers.append("Set-Cookie", cookie)
    return response


def _parameters(scope: Scope) -> Mapping[str, Any]:
    """Return the parameters of a request; those that are given twice are left out."""
    given = parse_qsl(
        scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=50
    )
    names = [name for name, _ in given]
    return {name: value for name, value in given if names.count(name) == 1}

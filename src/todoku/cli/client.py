"""Send requests to a service over HTTP, and turn failures into messages and exit codes."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from functools import cache
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

import msgspec
from uuid_utils import uuid7

from todoku.cli.credential import credential, how_to_get_in
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.formatting import printable
from todoku.cli.output import note
from todoku.cli.responses import Page, ProblemDetails
from todoku.loopback import is_loopback
from todoku.settings import Settings, port_flag, variable_of

RESPONSE_SECONDS_MAX = 35.0
"""Longer than a service takes to answer that a result is unknown."""

REPEATED_FOR_SECONDS = 10.0
"""How long a command is sent again whose connection broke."""

REPEAT_PAUSE_SECONDS = 0.2
"""The first pause; each is twice as long as the one before."""

PAGE_ITEMS_MAX = 200

if TYPE_CHECKING:
    from ssl import SSLContext

JSON = "application/json"
PROBLEM = "application/problem+json"

UNAUTHENTICATED = 401
OUTCOME_UNKNOWN = "outcome-unknown"
IN_PROGRESS = "request-in-progress"
WRONG_ADDRESS = ("unknown-address", "method-not-allowed")

T = TypeVar("T")


class Response(msgspec.Struct, frozen=True):
    """A response with JSON in its body, and the headers with lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServiceClient:
    """A client of one service, with a new connection for each request.

    Every method raises `CommandFailed`.
    """

    def __init__(
        self,
        service: str,
        url: str,
        *,
        timeout_seconds: float = RESPONSE_SECONDS_MAX,
        repeated_for_seconds: float = REPEATED_FOR_SECONDS,
        tls: "SSLContext | None" = None,
        key: str | None = None,
    ) -> None:
        self.service = service
        self._base = _parse(url)
        self._timeout_seconds = timeout_seconds
        self._repeated_for_seconds = repeated_for_seconds
        self._tls = tls
        self._key = key

    @property
    def url(self) -> str:
        """The service's address without a trailing slash and without a password."""
        return f"{self._base.scheme}://{self._place}{self._base.path.rstrip('/')}"

    @property
    def has_key(self) -> bool:
        """Whether a credential goes with each request."""
        return self._key is not None

    def get(
        self, path: str, query: Mapping[str, object] | None = None, *, wait_seconds: int = 0
    ) -> bytes:
        """Return the body at a path; parameters that are None are left out, and those with several values
        repeated. With `wait_seconds`, the service may take so long until there is something."""
        prefer = f"wait={wait_seconds}" if wait_seconds else None
        return self.request("GET", path + _query_string(query or {}), prefer=prefer).body

    def list(self, path: str, query: Mapping[str, object], *, items_max: int) -> Iterator[bytes]:
        """Yield the first `items_max` items of a list, requesting page by page."""
        cursor: str | None = None
        while items_max > 0:
            limit = min(items_max, PAGE_ITEMS_MAX)
            answer = self.get(path, {**query, "limit": limit, "cursor": cursor})
            page = self.read(answer, Page)
            yield from (bytes(item) for item in page.items)
            cursor, items_max = page.next_cursor, items_max - len(page.items)
            if cursor is None:
                return

    def send(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        find_out: str,
        if_match: str | None = None,
        key: str | None = None,
    ) -> bytes:
        """Send a command, and return the body. If the connection breaks, it is sent again with the same
        idempotency key, so that it is executed once. `find_out` tells the user how to check its result
        if no response arrives at all. It is refused unless what it changes has the entity tag
        `if_match`. `key` is the idempotency key; by default a new one."""
        key = key or str(uuid7())
        ends = time.monotonic() + self._repeated_for_seconds
        pause = REPEAT_PAUSE_SECONDS
        unknown: CommandFailed | None = None
        while True:
            try:
                return self.request(
                    method, path, body, find_out=find_out, key=key, if_match=if_match
                ).body
            except CommandFailed as failure:
                if failure.exit_code is ExitCode.OUTCOME_UNKNOWN:
                    unknown = failure
                elif unknown is None or not _may_be_executed(failure):
                    raise
            if method != "POST" or time.monotonic() + pause > ends:
                raise unknown
            time.sleep(pause)
            pause *= 2

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        find_out: str = "",
        key: str | None = None,
        if_match: str | None = None,
        prefer: str | None = None,
    ) -> Response:
        """Send one request, and return its response. With `key` it is executed once, however often it
        is sent."""
        headers = {"Idempotency-Key": key and f'"{key}"', "If-Match": if_match, "Prefer": prefer}
        connection = self._connected()
        try:
            answer = self._exchange(connection, method, path, body, headers)
        except (OSError, IncompleteRead) as error:
            raise self._no_response(error, find_out) from error
        except HTTPException as error:
            raise self._not_todoku("not an HTTP response") from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, path)
        return answer

    def read(self, answer: bytes, kind: type[T]) -> T:
        """Decode a body as `kind`."""
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._not_todoku(f"unexpected JSON ({error})") from error

    @property
    def _place(self) -> str:
        return self._base.netloc.rpartition("@")[2]

    def _connected(self) -> HTTPConnection:
        connection = self._connection()
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # the host name may be invalid
            raise self._unreachable(error) from error
        return connection

    def _connection(self) -> HTTPConnection:
        host, port, seconds = self._base.hostname or "", self._base.port, self._timeout_seconds
        if self._base.scheme == "https":
            return HTTPSConnection(host, port, timeout=seconds, context=self._tls)
        return HTTPConnection(host, port, timeout=seconds)

    def _exchange(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: bytes | None,
        optional: Mapping[str, str | None],
    ) -> Response:
        headers = {"Accept": f"{JSON}, {PROBLEM}", "Connection": "close"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        headers |= {name: value for name, value in optional.items() if value is not None}
        if body is not None:
            headers["Content-Type"] = JSON
        # A service may reject a body and close the connection before it has read all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self._base.path.rstrip("/") + path, body, headers)
        with connection.getresponse() as response:
            self._require_json(response)
            return Response(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )

    def _require_json(self, response: HTTPResponse) -> None:
        content_type = response.headers.get_content_type()
        if content_type in (JSON, PROBLEM):
            return
        if response.status >= 500:
            # From a proxy, which does not know the result of the request either.
            raise ConnectionError(f"{response.status} {response.reason}")
        raise self._not_todoku(f"{response.status} {response.reason}, {content_type}")

    def _unreachable(self, error: Exception) -> CommandFailed:
        flag, variable = port_flag(self.service), variable_of(f"{self.service}_port")
        return CommandFailed(
            f"the {self.service} service does not answer at {self.url}: {_reason(error)}.\n"
            f"Start it with `todoku up`, or correct the address ({flag}, {variable}, --url)."
            " `todoku doctor` diagnoses the problem.",
            exit_code=ExitCode.UNREACHABLE,
        )

    def _no_response(self, error: Exception, find_out: str) -> CommandFailed:
        failure = f"no response from {self.url}: {_reason(error)}"
        if find_out:
            return CommandFailed(
                f"{failure}.\nThe request may have been processed. {find_out}",
                exit_code=ExitCode.OUTCOME_UNKNOWN,
            )
        return CommandFailed(
            f"{failure}.\nTry again, or diagnose the problem with `todoku doctor`.",
            exit_code=ExitCode.UNREACHABLE,
        )

    def _not_todoku(self, response: str) -> CommandFailed:
        return CommandFailed(
            f"the server at {self.url} is not the {self.service} service of Todoku:"
            f" {printable(response)}.\nCorrect the address (--url, or"
            f" {port_flag(self.service)}).",
            exit_code=ExitCode.UNREACHABLE,
        )

    def _refusal(self, answer: Response, path: str) -> CommandFailed:
        if not answer.headers.get("content-type", "").startswith(PROBLEM):
            return self._not_todoku(f"{answer.status} for {path}")
        problem = self.read(answer.body, ProblemDetails)
        slug = problem.type.rpartition("/")[2]
        if slug in WRONG_ADDRESS:
            return self._not_todoku(f"{answer.status} for {path}, {problem.title}")
        lines = [*_explained(problem, urljoin(self.url, problem.type))]
        if answer.status == UNAUTHENTICATED:
            lines.append(f"  {how_to_get_in(self._key)}")
        return CommandFailed(
            "\n".join(lines),
            exit_code=_exit_code(answer.status, slug),
            problem=slug,
        )


def client(
    service: str,
    url: str | None,
    settings: Settings,
    *,
    timeout_seconds: float = RESPONSE_SECONDS_MAX,
    key: str | None = None,
) -> ServiceClient:
    """Return a client of the service at `url`, or at its address in the settings. It sends `key`, or the
    credential of the user. Raises `CommandFailed`."""
    from todoku.tls import TlsUnusable, own_context, public_context

    try:
        if url is None:
            trusted = own_context(settings)
        else:  # Reading the authorities of the system takes a while.
            trusted = public_context(settings.tls_ca) if url.startswith("https:") else None
    except TlsUnusable as error:
        raise CommandFailed(str(error), exit_code=ExitCode.USAGE) from error
    key = key or credential()
    address = url or settings.http_url(service)
    asked = ServiceClient(service, address, timeout_seconds=timeout_seconds, tls=trusted, key=key)
    parts = urlsplit(address)
    if key is not None and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        warn_of_clear_text(printable(parts.hostname or ""))
    return asked


@cache
def warn_of_clear_text(host: str) -> None:
    """Say once that a credential goes over a network where others can read it."""
    note(
        f"your credential goes to {host} in clear text, as the address begins with http://."
        " Whoever reads along on the way can use it. Use https:// if there is any."
    )


def segment(name: str) -> str:
    """Quote an id as one segment of a path. Raises `CommandFailed` for an invalid id."""
    if name in ("", ".", ".."):
        raise CommandFailed(
            f"{printable(name)!r} is not a valid id: it must not be empty, '.' or '..'.",
            exit_code=ExitCode.USAGE,
        )
    return quote(name, safe="")


def _parse(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        fit = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fit = False
    if not fit or parts.query or parts.fragment or any(map(str.isspace, url)):
        raise CommandFailed(
            f"{printable(url)!r} is not the address of a service: use http://HOST:PORT.",
            exit_code=ExitCode.USAGE,
        )
    return parts


def _query_string(query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _explained(problem: ProblemDetails, page: str) -> Iterator[str]:
    """Yield the lines of a problem: title, errors or detail, and the address of its page."""
    yield printable(problem.title)
    for error in problem.errors:
        yield f"  {printable(error.pointer or error.parameter)}: {printable(error.detail)}"
    if not problem.errors:
        yield f"  {printable(problem.detail)}"
    yield f"  See {printable(page)}"


def _may_be_executed(failure: CommandFailed) -> bool:
    """Return whether a failure leaves it open if an earlier attempt is executed."""
    unanswered = failure.exit_code in (ExitCode.UNREACHABLE, ExitCode.BUSY)
    return unanswered or failure.problem == IN_PROGRESS


def _exit_code(status: int, slug: str) -> ExitCode:
    match status:
        case 404:
            return ExitCode.NOT_FOUND
        case 429:
            return ExitCode.BUSY
        case 503:
            return ExitCode.OUTCOME_UNKNOWN if slug == OUTCOME_UNKNOWN else ExitCode.BUSY
        case _ if status < 500:
            return ExitCode.REFUSED
        case _:
            return ExitCode.FAILED

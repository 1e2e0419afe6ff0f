"""Asks a service over HTTP, and says in words what keeps it from answering."""

import contextlib
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import TypeVar
from urllib.parse import SplitResult, quote, urlencode, urljoin, urlsplit

import msgspec

from todoku.cli.answers import Page, ProblemDetails
from todoku.cli.errors import CommandFailed
from todoku.cli.exit_codes import ExitCode
from todoku.cli.words import printable
from todoku.settings import SETTINGS, ServiceName, Settings

ANSWER_SECONDS_MAX = 35.0
"""Longer than a service takes to say that it does not know the outcome."""

PAGE_ITEMS_MAX = 200

JSON = "application/json"
PROBLEM = "application/problem+json"

OUTCOME_UNKNOWN = "outcome-unknown"
WRONG_ADDRESS = ("unknown-address", "method-not-allowed")

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """What a service answered: JSON, and the headers with their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """One service, asked on a new connection each time. Every method raises `CommandFailed`."""

    def __init__(
        self, service: ServiceName, url: str, *, timeout_seconds: float = ANSWER_SECONDS_MAX
    ) -> None:
        self.service = service
        self._base = _parse(url)
        self._timeout_seconds = timeout_seconds

    @property
    def url(self) -> str:
        """Where the service is, without a slash at the end and without a password."""
        return f"{self._base.scheme}://{self._place}{self._base.path.rstrip('/')}"

    def get(self, path: str, query: Mapping[str, object] | None = None) -> bytes:
        """What there is at a path; parameters that are None are left out."""
        return self.ask("GET", path + _query_string(query or {})).body

    def list(self, path: str, query: Mapping[str, object], *, items_max: int) -> Iterator[bytes]:
        """The first `items_max` items of a list, asked for page by page as they are wanted."""
        cursor: str | None = None
        while items_max > 0:
            limit = min(items_max, PAGE_ITEMS_MAX)
            answer = self.get(path, {**query, "limit": limit, "cursor": cursor})
            page = self.read(answer, Page)
            yield from (bytes(item) for item in page.items)
            cursor, items_max = page.next_cursor, items_max - len(page.items)
            if cursor is None or not page.items:
                return

    def send(self, method: str, path: str, body: bytes, *, find_out: str) -> bytes:
        """Have something done; `find_out` says how to learn whether it was, if no answer comes."""
        return self.ask(method, path, body, find_out=find_out).body

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, find_out: str = ""
    ) -> Answer:
        """One request and its answer."""
        connection = self._connected()
        try:
            answer = self._exchange(connection, method, path, body)
        except (OSError, IncompleteRead) as error:
            raise self._broken_off(error, find_out) from error
        except HTTPException as error:
            raise self._stranger("something else than HTTP") from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise self._refusal(answer, path)
        return answer

    def read(self, answer: bytes, kind: type[T]) -> T:
        """An answer as what it should be."""
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._stranger(f"an answer that this version cannot read ({error})") from error

    @property
    def _place(self) -> str:
        return self._base.netloc.rpartition("@")[2]

    def _connected(self) -> HTTPConnection:
        kind = HTTPSConnection if self._base.scheme == "https" else HTTPConnection
        connection = kind(self._base.hostname or "", self._base.port, timeout=self._timeout_seconds)
        try:
            connection.connect()
        except (OSError, UnicodeError) as error:  # a host name may be one that cannot be asked for
            raise self._unreachable(error) from error
        return connection

    def _exchange(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None
    ) -> Answer:
        headers = {"Accept": f"{JSON}, {PROBLEM}", "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = JSON
        # A service that refuses a body may answer and hang up before it has read it all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, self._base.path.rstrip("/") + path, body, headers)
        with connection.getresponse() as response:
            self._require_json(response)
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )

    def _require_json(self, response: HTTPResponse) -> None:
        content_type = response.headers.get_content_type()
        if content_type in (JSON, PROBLEM):
            return
        if response.status >= 500:
            # A proxy's own words: it does not know what became of the request either.
            raise ConnectionError(f"{response.status} {response.reason}")
        raise self._stranger(f"{response.status} {response.reason}, {content_type}")

    def _unreachable(self, error: Exception) -> CommandFailed:
        port = SETTINGS[f"{self.service}_port"]
        return CommandFailed(
            f"the {self.service} service does not answer at {self.url}: {_reason(error)}.\n"
            f"Is `todoku up` running? Is this the address ({port.flag}, {port.variable}, --url)?"
            " `todoku doctor` looks for the cause.",
            exit_code=ExitCode.UNREACHABLE,
        )

    def _broken_off(self, error: Exception, find_out: str) -> CommandFailed:
        broken_off = f"the answer from {self.url} did not come: {_reason(error)}"
        if find_out:
            return CommandFailed(
                f"{broken_off}.\nIt may have been carried out. {find_out}",
                exit_code=ExitCode.OUTCOME_UNKNOWN,
            )
        return CommandFailed(
            f"{broken_off}.\nTry again; `todoku doctor` looks for the cause.",
            exit_code=ExitCode.UNREACHABLE,
        )

    def _stranger(self, answered: str) -> CommandFailed:
        return CommandFailed(
            f"what answers at {self.url} is not the {self.service} service of Todoku:"
            f" {printable(answered)}.\nCorrect the address (--url, or"
            f" {SETTINGS[f'{self.service}_port'].flag}).",
            exit_code=ExitCode.UNREACHABLE,
        )

    def _refusal(self, answer: Answer, path: str) -> CommandFailed:
        if not answer.headers.get("content-type", "").startswith(PROBLEM):
            return self._stranger(f"{answer.status} for {path}")
        problem = self.read(answer.body, ProblemDetails)
        slug = problem.type.rpartition("/")[2]
        if slug in WRONG_ADDRESS:
            return self._stranger(f"{answer.status} for {path}, {problem.title}")
        return CommandFailed(
            "\n".join(_in_words(problem, urljoin(self.url, problem.type))),
            exit_code=_exit_code(answer.status, slug),
        )


def client(service: ServiceName, url: str | None, settings: Settings) -> Client:
    """The service at `url`, or where the settings say that it is. Raises `CommandFailed`."""
    return Client(service, url or settings.http_url(service))


def segment(name: str) -> str:
    """An id as one segment of a path. Raises `CommandFailed` for what cannot be one."""
    if not name or "/" in name:
        raise CommandFailed(
            f"{printable(name)!r} is not an id: an id is not empty and has no slashes.",
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
            f"{printable(url)!r} is not the address of a service: write it as http://HOST:PORT.",
            exit_code=ExitCode.USAGE,
        )
    return parts


def _query_string(query: Mapping[str, object]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _in_words(problem: ProblemDetails, explained_at: str) -> Iterator[str]:
    """What is wrong, where, what to do, and where to read on."""
    yield printable(problem.title)
    for fault in problem.errors:
        yield f"  {printable(fault.pointer or fault.parameter)}: {printable(fault.detail)}"
    if not problem.errors:
        yield f"  {printable(problem.detail)}"
    yield f"  More about it: {printable(explained_at)}"


def _exit_code(status: int, slug: str) -> ExitCode:
    match status:
        case 404:
            return ExitCode.NOT_FOUND
        case 503:
            return ExitCode.OUTCOME_UNKNOWN if slug == OUTCOME_UNKNOWN else ExitCode.BUSY
        case _ if status < 500:
            return ExitCode.REFUSED
        case _:
            return ExitCode.FAILED

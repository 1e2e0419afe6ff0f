"""RFC 9457 problem types, and the exception that carries one.

A problem type is described once: responses, the pages under `/problems/`, the OpenAPI documents and the
reference in the documentation are generated from it. Those of one service are in its own package.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = "application/problem+json"


class ProblemType(msgspec.Struct, frozen=True):
    """A problem type: what happened (`meaning`) and what to do (`advice`)."""

    slug: str
    status: int
    title: str
    meaning: str
    advice: str

    @property
    def address(self) -> str:
        """Path of the page about it; also its RFC 9457 `type`."""
        return f"/problems/{self.slug}"


MALFORMED_REQUEST = ProblemType(
    "malformed-request",
    400,
    "The request is malformed",
    "The request is not valid HTTP/1.1: for example, its Host header is missing, duplicated or not a "
    "host name.",
    "Correct what `detail` names.",
)
MALFORMED_JSON = ProblemType(
    "malformed-json",
    400,
    "The body is not JSON",
    "The body is empty, incomplete, not UTF-8, or not valid JSON.",
    "Send one JSON object in UTF-8. `detail` says where parsing stopped.",
)
INVALID_IDEMPOTENCY_KEY = ProblemType(
    "invalid-idempotency-key",
    400,
    "The idempotency key is invalid",
    "The header Idempotency-Key is given more than once, is empty, too long, or has other characters than "
    "printable ASCII. Nothing was changed.",
    'Send one key of at most 255 characters, in quotation marks: `Idempotency-Key: "8e03978e-40d5-…"`.',
)
INVALID_IF_MATCH = ProblemType(
    "invalid-if-match",
    400,
    "The header If-Match is invalid",
    "The header If-Match is neither `*` nor a list of entity tags. Nothing was changed.",
    "Send the `ETag` of the last response as it is, with its quotation marks.",
)
INVALID_PARAMETER = ProblemType(
    "invalid-parameter",
    400,
    "A parameter is invalid",
    "A parameter of the address is unknown, duplicated, or has an invalid value.",
    "Correct the parameter that `errors` names. Take cursors only from `nextCursor` or from the "
    "Link header of the page before.",
)
UNAUTHENTICATED = ProblemType(
    "unauthenticated",
    401,
    "A valid credential is needed",
    "The request has no credential, or one that is unknown, expired or revoked. Nothing was changed.",
    "Send the header `Authorization: Bearer …` with an API key or an access token.",
)
MISSING_SCOPE = ProblemType(
    "missing-scope",
    403,
    "The credential does not permit this",
    "The credential is valid, but does not have the scope that the operation needs. Nothing was changed.",
    "Use a credential that has the scope in `scope`; /docs names the scope of each operation.",
)
FOREIGN_PAGE = ProblemType(
    "foreign-page",
    403,
    "A page of another site may not do that",
    "A browser says (Origin, Sec-Fetch-Site) that the request comes from a page of another site. Nothing was "
    "changed.",
    "Call the service from a page of its own site, or from a program. If the page is yours, add its host to "
    "the setting `public_hosts`.",
)
UNKNOWN_ADDRESS = ProblemType(
    "unknown-address",
    404,
    "Unknown address",
    "This service has no resource at this path.",
    "See /docs for the paths. Each service listens on its own port.",
)
UNKNOWN_DEAD_LETTER = ProblemType(
    "unknown-letter",
    404,
    "Unknown dead letter",
    "This service has no dead letter with this id.",
    "See GET /dead-letters. Each service has its own dead letters.",
)
UNKNOWN_PAUSE = ProblemType(
    "unknown-pause",
    404,
    "Unknown pause",
    "This service has no pause with this id.",
    "See GET /pauses. Each service has its own pauses.",
)
UNKNOWN_KEY = ProblemType(
    "unknown-key",
    404,
    "Unknown API key",
    "This service knows no API key with this id.",
    "See GET /keys. A new key arrives at the other services within a moment.",
)
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed",
    405,
    "Method not allowed",
    "The resource exists but does not support this HTTP method.",
    "Use one of the methods in the Allow header.",
)
REQUEST_TOO_SLOW = ProblemType(
    "request-too-slow",
    408,
    "The request did not arrive in time",
    "The headers or the body were not complete within the time limit. Nothing was changed.",
    "Send the request again on a new connection.",
)
DEAD_LETTER_RESOLVED = ProblemType(
    "letter-closed",
    409,
    "The dead letter is resolved",
    "The message is no longer parked: it was retried, edited or discarded, or is being redelivered "
    "now. Nothing was changed.",
    "See its `state`; for an edited dead letter, `replacedBy` is the id of its replacement.",
)
REDELIVERY_FAILED = ProblemType(
    "letter-stays-parked",
    409,
    "The redelivery failed",
    "The message failed again, as `detail` says. The attempt is recorded, and the message stays parked.",
    "Fix the cause and retry, edit the message, or discard it.",
)
NOT_PAUSED = ProblemType(
    "not-paused",
    409,
    "The pause has ended",
    "This pause was resumed before, as `detail` says. Nothing was changed.",
    "See GET /pauses?state=PAUSED for what is paused. To pause again, send a new POST /pauses.",
)
REQUEST_IN_PROGRESS = ProblemType(
    "request-in-progress",
    409,
    "The first request is in progress",
    "A request with the same Idempotency-Key is being executed at this moment.",
    "Send the request again with the same key, after the number of seconds in the Retry-After header: it "
    "gets the answer of the first one.",
)
ANSWER_UNAVAILABLE = ProblemType(
    "answer-unavailable",
    409,
    "The answer is no longer available",
    "A request with this Idempotency-Key was executed, but its answer cannot be built any more: another "
    "version of the service kept it, or what it is about is gone. Nothing was changed.",
    "Look up the result with GET. Do not send the request with another key: it would be executed again.",
)
BODY_TOO_LARGE = ProblemType(
    "body-too-large",
    413,
    "The body is too large",
    "The body is larger than `request_body_bytes_max`, or the event that follows from it is larger than "
    "the broker takes. Nothing was changed.",
    "Send less at a time, or raise the setting `request_body_bytes_max` of the service, or "
    "`max_payload` of the broker.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    415,
    "Unsupported media type",
    "The Content-Type header is missing or not JSON, or the body is compressed.",
    "Send the header `Content-Type: application/json` and an uncompressed body.",
)
EXPECTATION_FAILED = ProblemType(
    "expectation-failed",
    417,
    "The expectation cannot be met",
    "The request has an Expect header with another value than `100-continue`.",
    "Send the request without the Expect header.",
)
INVALID_BODY = ProblemType(
    "invalid-body",
    422,
    "The body is invalid",
    "The body is JSON, but a field is missing, unknown, duplicated, of the wrong type or outside its "
    "limits.",
    "Correct the field that `detail` names; /docs describes every field.",
)
IDEMPOTENCY_KEY_REUSED = ProblemType(
    "idempotency-key-reused",
    422,
    "The idempotency key was used before",
    "This Idempotency-Key was sent before with another path or body. Nothing was changed.",
    "Send a new key with each new request, and the same key only with the same request.",
)
INVALID_EDIT = ProblemType(
    "invalid-edit",
    422,
    "The edited message is invalid",
    "The data is not an event of the same type and order, or the parked message has no readable "
    "envelope. Nothing was changed.",
    "Correct what `detail` names; /asyncapi.json describes every event.",
)
UNKNOWN_PAUSE_TARGET = ProblemType(
    "unknown-pause-target",
    422,
    "This cannot be paused here",
    "This service has nothing of this name that can be paused. Nothing was changed.",
    "Use one of the targets that `detail` names; `service` pauses all of them.",
)
RATE_LIMITED = ProblemType(
    "rate-limited",
    429,
    "Too many requests",
    "This caller has sent more requests than `violated-policies` allow; the header RateLimit-Policy says how "
    "many. Nothing was changed.",
    "Send the request again after the number of seconds in the Retry-After header.",
)
HEADERS_TOO_LARGE = ProblemType(
    "headers-too-large",
    431,
    "The headers are too large",
    "The address and headers of a request are larger than 64 KiB together, or there are more than 100 "
    "headers.",
    "Send fewer or shorter headers.",
)
INTERNAL_ERROR = ProblemType(
    "internal-error",
    500,
    "Internal error",
    "An unexpected error occurred. The service's log has the details.",
    "Check whether the request had an effect before sending it again, and report the error.",
)
NOT_IMPLEMENTED = ProblemType(
    "not-implemented",
    501,
    "Not implemented",
    "The request has a Transfer-Encoding other than `chunked`.",
    "Send the body with Content-Length, or with Transfer-Encoding: chunked.",
)
OVERLOADED = ProblemType(
    "overloaded",
    503,
    "The service is overloaded",
    "Too many requests are waiting. Nothing was changed.",
    "Send the request again after the number of seconds in the Retry-After header.",
)
TOO_MANY_STREAMS = ProblemType(
    "too-many-streams",
    503,
    "Too many streams are open",
    "This process has as many open streams of events as it may have.",
    "Connect again after the number of seconds in the Retry-After header, perhaps to another process; or "
    "read the events page by page.",
)
UNKNOWN_HOST = ProblemType(
    "unknown-host",
    421,
    "The service has another name",
    "The Host of the request is neither a name of this machine nor in the setting `public_hosts`. A web page "
    "may have led a browser here (DNS rebinding).",
    "Call the service by one of its names. If clients reach it under this one, perhaps through a proxy, add "
    "it to the setting `public_hosts`.",
)
DATABASE_UNAVAILABLE = ProblemType(
    "database-unavailable",
    503,
    "The database is unavailable",
    "The service cannot reach its database, or the database is locked or full.",
    "Send the request again later. The service's log and /readyz have details.",
)
ISSUER_UNAVAILABLE = ProblemType(
    "issuer-unavailable",
    503,
    "Access tokens cannot be verified now",
    "The service could not read the keys of the issuer of access tokens (OIDC) since its start, or for a "
    "day. API keys are not affected. Nothing was changed.",
    "Send the request again later. The service's log and `todoku doctor` say what is wrong.",
)
NEWER_VERSION = ProblemType(
    "newer-version",
    503,
    "A newer version is needed",
    "A newer version of the service has brought this into a status that the process that answered does not "
    "know: the service is being updated. Nothing was changed.",
    "Send the request again; another process may answer it, and this one when it is updated.",
)
OUTCOME_UNKNOWN = ProblemType(
    "outcome-unknown",
    503,
    "The result is unknown",
    "The request was accepted, but there was no result within the time limit. It may still be "
    "executed.",
    "Look up the result as `detail` says before sending the request again.",
)
NOT_READY = ProblemType(
    "not-ready",
    503,
    "The service is not ready",
    "The service is starting or stopping, or its database is unavailable.",
    "See `detail` and the service's log. The service is ready once it has started, or once its "
    "database is available again.",
)
HTTP_VERSION_NOT_SUPPORTED = ProblemType(
    "http-version-not-supported",
    505,
    "HTTP version not supported",
    "The request is not HTTP/1.1 or HTTP/1.0.",
    "Use HTTP/1.1. For HTTP/2, put a proxy that translates it in front of the service.",
)

SHARED_PROBLEM_TYPES: Final[Sequence[ProblemType]] = (
    MALFORMED_REQUEST,
    MALFORMED_JSON,
    INVALID_IDEMPOTENCY_KEY,
    INVALID_IF_MATCH,
    INVALID_PARAMETER,
    UNAUTHENTICATED,
    MISSING_SCOPE,
    FOREIGN_PAGE,
    UNKNOWN_ADDRESS,
    UNKNOWN_DEAD_LETTER,
    UNKNOWN_PAUSE,
    UNKNOWN_KEY,
    METHOD_NOT_ALLOWED,
    REQUEST_TOO_SLOW,
    DEAD_LETTER_RESOLVED,
    REDELIVERY_FAILED,
    NOT_PAUSED,
    REQUEST_IN_PROGRESS,
    ANSWER_UNAVAILABLE,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    EXPECTATION_FAILED,
    UNKNOWN_HOST,
    INVALID_BODY,
    IDEMPOTENCY_KEY_REUSED,
    INVALID_EDIT,
    UNKNOWN_PAUSE_TARGET,
    RATE_LIMITED,
    HEADERS_TOO_LARGE,
    INTERNAL_ERROR,
    NOT_IMPLEMENTED,
    OVERLOADED,
    TOO_MANY_STREAMS,
    DATABASE_UNAVAILABLE,
    ISSUER_UNAVAILABLE,
    NEWER_VERSION,
    OUTCOME_UNKNOWN,
    NOT_READY,
    HTTP_VERSION_NOT_SUPPORTED,
)
"""The problem types that every service has, ordered by status."""


class InputError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error in the body at `pointer` (RFC 6901, as a fragment), or in a `parameter` of the
    address."""

    detail: str
    pointer: str | msgspec.UnsetType = msgspec.UNSET
    parameter: str | msgspec.UnsetType = msgspec.UNSET


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why a request failed (RFC 9457). `type` is the path of a page about it."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[InputError, ...] = ()


class Problem(Exception):
    """A request failed; `detail` says why, and what to do. `members` are extension members of the problem
    document (RFC 9457, section 3.2)."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        errors: Sequence[InputError] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}
        self.members = members or {}
        super().__init__(detail)

    def details(self) -> ProblemDetails | Mapping[str, Any]:
        """Return the problem document."""
        details = ProblemDetails(
            type=self.kind.address,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            errors=self.errors,
        )
        return {**msgspec.to_builtins(details), **self.members} if self.members else details


def ordered(kinds: Iterable[ProblemType]) -> Sequence[ProblemType]:
    """Return the shared problem types and these, each once, ordered by status."""
    every = dict.fromkeys((*SHARED_PROBLEM_TYPES, *kinds))
    return sorted(every, key=lambda kind: kind.status)


def reference(kinds: Iterable[ProblemType]) -> str:
    """Return a reference of problem types in Markdown."""
    return "\n".join(
        f"## {kind.slug}\n\n**{kind.status}: {kind.title}.** {kind.meaning}\n\n"
        f"*What to do:* {kind.advice}\n"
        for kind in kinds
    )

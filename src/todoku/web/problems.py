"""Every way in which a request can go wrong: RFC 9457 problem types, and the error that carries one.

This registry is the only place where a problem is described: the answers, the pages under
`/problems/`, the OpenAPI documents and the reference in the documentation are made from it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

CONTENT_TYPE: Final = "application/problem+json"


class ProblemType(msgspec.Struct, frozen=True):
    """A kind of problem: what has happened (`meaning`) and what to do about it (`advice`)."""

    slug: str
    status: int
    title: str
    meaning: str
    advice: str

    @property
    def address(self) -> str:
        """Where every service explains it; also its RFC 9457 `type`."""
        return f"/problems/{self.slug}"


MALFORMED_REQUEST = ProblemType(
    "malformed-request",
    400,
    "The request is malformed",
    "The request as a whole cannot be understood, for instance because its Host header is missing, "
    "given twice, or not a host.",
    "Correct what the detail names.",
)
MALFORMED_JSON = ProblemType(
    "malformed-json",
    400,
    "The body is not JSON",
    "The body is empty, breaks off, is not UTF-8, or breaks the grammar of JSON.",
    "Send one JSON object in UTF-8. The detail says where reading stopped.",
)
INVALID_PARAMETER = ProblemType(
    "invalid-parameter",
    400,
    "A parameter is not allowed",
    "A parameter in the address is unknown, is given twice, or has a value that is not allowed.",
    "Correct the parameter that `errors` names. Take a cursor only from `nextCursor` or from the "
    "Link header of the page before.",
)
UNKNOWN_ADDRESS = ProblemType(
    "unknown-address",
    404,
    "There is nothing at this address",
    "This service has no such path.",
    "Look the path up under /docs; orders, inventory and shipping listen on ports of their own.",
)
UNKNOWN_ORDER = ProblemType(
    "unknown-order",
    404,
    "There is no such order",
    "No order has this id.",
    "Use the `id` from the answer to POST /orders. An order that was not answered with 201 may not "
    "exist: place it again.",
)
UNKNOWN_PRODUCT = ProblemType(
    "unknown-product",
    404,
    "There is no such product",
    "No product has this id.",
    "Look at GET /products, or create the product with PUT /products/{productId}.",
)
UNKNOWN_SHIPMENT = ProblemType(
    "unknown-shipment",
    404,
    "There is no such shipment",
    "No shipment has this id. A shipment is opened once an order's stock is reserved.",
    "Look for the order's shipment with GET /shipments?orderId=….",
)
UNKNOWN_LETTER = ProblemType(
    "unknown-letter",
    404,
    "There is no such dead letter",
    "No message with this id is or was parked at this service.",
    "Look at GET /dead-letters; orders, inventory and shipping each keep their own.",
)
METHOD_NOT_ALLOWED = ProblemType(
    "method-not-allowed",
    405,
    "This method is not allowed here",
    "The address exists, but does not offer this HTTP method.",
    "Use one of the methods in the Allow header.",
)
REQUEST_TOO_SLOW = ProblemType(
    "request-too-slow",
    408,
    "The body did not arrive in time",
    "The headers announced a body that was not complete within the time allowed. Nothing was done.",
    "Send the request again on a new connection.",
)
STOCK_NOT_SETTABLE = ProblemType(
    "stock-not-settable",
    409,
    "The stock of a product cannot be set",
    "`stockQuantity` is the opening stock of a new product. This product exists, and its stock "
    "changes only through the ledger.",
    "Leave out `stockQuantity`; add stock with POST /products/{productId}/restock.",
)
TOO_MUCH_STOCK = ProblemType(
    "too-much-stock",
    409,
    "There would be too much stock",
    "The stock on hand would pass 2⁵³−1 = 9007199254740991, the largest whole number that every "
    "JSON reader keeps exact.",
    "Restock fewer pieces.",
)
LETTER_CLOSED = ProblemType(
    "letter-closed",
    409,
    "The dead letter has been seen to",
    "The message is no longer parked: it was retried, edited or discarded, or is being dealt with "
    "at this moment. Nothing was done.",
    "Look at its `state`; of an edited one, `replacedBy` leads to its successor.",
)
LETTER_STAYS_PARKED = ProblemType(
    "letter-stays-parked",
    409,
    "The message could not be dealt with this time either",
    "The retry failed as the detail says. The attempt is written down, and the message stays parked.",
    "Remove the cause and retry, edit the message, or discard it.",
)
BODY_TOO_LARGE = ProblemType(
    "body-too-large",
    413,
    "The body is too large",
    "The body is larger than `request_body_bytes_max`. Nothing was done.",
    "Send less at a time, or raise the setting `request_body_bytes_max` of the service.",
)
UNSUPPORTED_MEDIA_TYPE = ProblemType(
    "unsupported-media-type",
    415,
    "The body is of the wrong type",
    "The Content-Type header is missing or is not JSON in UTF-8, or the body is compressed.",
    "Send the header `Content-Type: application/json`, and the body uncompressed.",
)
INVALID_BODY = ProblemType(
    "invalid-body",
    422,
    "The body is not what is expected here",
    "The body is JSON, but a field is missing, unknown, given twice, of the wrong type or out of its "
    "limits.",
    "Correct the field that the detail names; /docs describes every field.",
)
INVALID_ORDER = ProblemType(
    "invalid-order",
    422,
    "This cannot become an order",
    "Every field is well formed, but they do not make an order together: a product has two prices, "
    "or the total passes 2⁵³−1 = 9007199254740991.",
    "Change what the detail names, and send the order again.",
)
INVALID_EDIT = ProblemType(
    "invalid-edit",
    422,
    "This cannot take the message's place",
    "The data is not an event of the same type and about the same order, or of the parked message "
    "not even the envelope can be read. Nothing was done.",
    "Change what the detail names; /asyncapi.json describes every event.",
)
HEADERS_TOO_LARGE = ProblemType(
    "headers-too-large",
    431,
    "The headers are too large",
    "The address and the headers of a request may take 64 KiB together.",
    "Send fewer or shorter headers.",
)
INTERNAL_ERROR = ProblemType(
    "internal-error",
    500,
    "The service made a mistake",
    "Something happened that the service was not prepared for. Its log tells more.",
    "Look up whether the request had an effect before sending it again, and report the mistake.",
)
OVERLOADED = ProblemType(
    "overloaded",
    503,
    "Too much is waiting already",
    "The service is asked for more than it can do at present. Nothing was done.",
    "Send the request again after the number of seconds in the Retry-After header.",
)
DATABASE_UNAVAILABLE = ProblemType(
    "database-unavailable",
    503,
    "The database is not available",
    "The service cannot reach its database, or finds it locked or full.",
    "Send the request again a little later. The service's log and /readyz say more.",
)
OUTCOME_UNKNOWN = ProblemType(
    "outcome-unknown",
    503,
    "The outcome is not known yet",
    "The request was taken, but its outcome was not known when the time for the answer had passed. "
    "It may still be carried out.",
    "Find out as the detail says before sending the request again.",
)
NOT_READY = ProblemType(
    "not-ready",
    503,
    "The service is not ready",
    "The service runs, but its database does not serve it.",
    "See the detail and the service's log. The service recovers by itself once the database does.",
)

PROBLEM_TYPES: Final[Mapping[str, ProblemType]] = {
    kind.slug: kind
    for kind in (
        MALFORMED_REQUEST,
        MALFORMED_JSON,
        INVALID_PARAMETER,
        UNKNOWN_ADDRESS,
        UNKNOWN_ORDER,
        UNKNOWN_PRODUCT,
        UNKNOWN_SHIPMENT,
        UNKNOWN_LETTER,
        METHOD_NOT_ALLOWED,
        REQUEST_TOO_SLOW,
        STOCK_NOT_SETTABLE,
        TOO_MUCH_STOCK,
        LETTER_CLOSED,
        LETTER_STAYS_PARKED,
        BODY_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        INVALID_BODY,
        INVALID_ORDER,
        INVALID_EDIT,
        HEADERS_TOO_LARGE,
        INTERNAL_ERROR,
        OVERLOADED,
        DATABASE_UNAVAILABLE,
        OUTCOME_UNKNOWN,
        NOT_READY,
    )
}
"""Every problem type by its slug, in the order of the status codes."""


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong: in the body at `pointer` (RFC 6901, as a fragment), or in a
    `parameter` of the address."""

    detail: str
    pointer: str | msgspec.UnsetType = msgspec.UNSET
    parameter: str | msgspec.UnsetType = msgspec.UNSET


class ProblemDetails(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why a request was not carried out (RFC 9457). `type` is the address of a page about it."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[Fault, ...] = ()


class Problem(Exception):
    """A request is not carried out; `detail` says why in this case, and what to do."""

    def __init__(
        self,
        kind: ProblemType,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = headers or {}
        super().__init__(detail)

    def details(self) -> ProblemDetails:
        """What the client is told."""
        return ProblemDetails(
            type=self.kind.address,
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            errors=self.errors,
        )


def reference() -> str:
    """The reference of all problem types, in Markdown."""
    return "\n".join(
        f"## {kind.slug}\n\n**{kind.status}: {kind.title}.** {kind.meaning}\n\n"
        f"*What to do:* {kind.advice}\n"
        for kind in PROBLEM_TYPES.values()
    )

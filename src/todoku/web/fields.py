"""Field types of bodies, queries and paths, with their limits.

Patterns end with `\\Z`, since `$` also matches before a final newline in Python; other languages
know no `\\Z`, so documents have `$` (`to_portable`). PostgreSQL cannot store the character NUL, so no
text may contain it.
"""

import re
from datetime import datetime
from typing import Annotated, Final

from msgspec import Meta

from todoku.contracts import MAX_SAFE_INTEGER
from todoku.currencies import CURRENCIES
from todoku.events import is_canonical_uuid
from todoku.identity.scopes import SCOPE_PATTERN

ITEMS_MAX: Final = 1_000
PAGE_MAX: Final = 200
PRODUCT_ID_LENGTH_MAX: Final = 255
CURSOR_LENGTH_MAX: Final = 1_400
"""Enough for the longest product id in UTF-8, and for what is added to it."""

PRODUCT_ID_PATTERN: Final = (
    r"^(?:\.{0,2}[^\x00-\x20\x7f-\xa0.]|\.\.\.)"
    r"(?:[^\x00-\x1f\x7f-\xa0]*[^\x00-\x20\x7f-\xa0])?\Z"
)
CURRENCY_PATTERN: Final = rf"^(?:{'|'.join(CURRENCIES)})\Z"
UUID_PATTERN: Final = (
    r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\Z"
)
CURSOR_PATTERN: Final = r"^[A-Za-z0-9_-]+\Z"
FEED_CURSOR_PATTERN: Final = r"^[0-9a-f]{1,14}\.[0-9]{1,18}\.[0-9a-f]{8}\.[0-9a-f]{8}\Z"
CODE_PATTERN: Final = r"^[A-Z][A-Z0-9_]{0,31}\Z"
GROUP_PATTERN: Final = r"^[0-9a-f]{12}\Z"
TEXT_PATTERN: Final = r"^[^\x00]*\Z"
IDEMPOTENCY_KEY_PATTERN: Final = (
    r'^(?:"(?:[ !#-\[\]-~]|\\["\\]){1,255}"|[!#-+\--:<-\[\]-~]{1,255})\Z'
)

ALLOWED: Final = {
    PRODUCT_ID_PATTERN: "1 to 255 printable characters, without a space at either end, but not '.' or '..'",
    CURRENCY_PATTERN: "the code of a currency of ISO 4217, in capital letters: JPY, EUR",
    UUID_PATTERN: "a UUID: 8-4-4-4-12 hexadecimal digits",
    CURSOR_PATTERN: "a cursor from nextCursor or from the Link header",
    FEED_CURSOR_PATTERN: "a cursor of the feed: `next` of GET /changes, or the `id` of an event of GET"
    " /orders/stream",
    CODE_PATTERN: "1 to 32 capital letters, digits or '_', beginning with a letter",
    GROUP_PATTERN: "a group from GET /dead-letters/groups: 12 hexadecimal digits",
    SCOPE_PATTERN: "a scope, such as orders:read, or a role",
    TEXT_PATTERN: "a text without the character NUL",
    IDEMPOTENCY_KEY_PATTERN: "1 to 255 printable ASCII characters between quotation marks; these may be"
    " left out if the key has no space, quotation mark, comma, semicolon or backslash",
}
"""A description of what each pattern allows."""


def to_portable(pattern: str) -> str:
    """Return a pattern in the syntax that ECMAScript, RE2 and JSON Schema share."""
    return pattern.removesuffix(r"\Z") + "$"


UserId = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=128,
        description="The customer's id in your own system.",
        examples=["user123"],
    ),
]
ProductId = Annotated[
    str,
    Meta(
        pattern=PRODUCT_ID_PATTERN,
        max_length=PRODUCT_ID_LENGTH_MAX,
        description="The id of a product: any printable text. In an address, each character that is not a "
        "letter of ASCII, a digit or one of `-._~` is percent-encoded, `/` as `%2F`.",
        examples=["prod001"],
    ),
]
Uuid = Annotated[
    str,
    Meta(pattern=UUID_PATTERN, examples=["0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"]),
]
Quantity = Annotated[
    int,
    Meta(ge=1, le=MAX_SAFE_INTEGER, description="A number of pieces.", examples=[2]),
]
StockQuantity = Annotated[
    int,
    Meta(ge=0, le=MAX_SAFE_INTEGER, description="A number of pieces on hand.", examples=[10]),
]
Price = Annotated[
    int,
    Meta(
        ge=0,
        le=MAX_SAFE_INTEGER,
        description="The price of one piece in minor units of the currency (yen, cents); 0 for a sample.",
        examples=[5000],
    ),
]
Currency = Annotated[
    str,
    Meta(pattern=CURRENCY_PATTERN, description="An ISO 4217 currency code.", examples=["JPY"]),
]
Address = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        max_length=1_000,
        description="The delivery address.",
        examples=["1-1 Chiyoda, Tokyo"],
    ),
]
Name = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=200,
        description="The name of a product.",
        examples=["Super Keyboard"],
    ),
]
Note = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        max_length=200,
        description="Why the stock changes, for the ledger.",
        examples=["Delivery 4711"],
    ),
]
Deadline = Annotated[
    datetime,
    Meta(
        tz=True,
        description="When the order is cancelled unless it was shipped: a time with an offset.",
        examples=["2030-01-02T03:04:05Z"],
    ),
]
Holder = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=128,
        description="Who holds the order: a team or a system.",
        examples=["fraud-review"],
    ),
]
Expiry = Annotated[
    datetime,
    Meta(
        tz=True,
        description="When it ends by itself: a time with an offset.",
        examples=["2030-01-02T03:04:05Z"],
    ),
]
GroupId = Annotated[
    str,
    Meta(
        pattern=GROUP_PATTERN,
        description="The id of a group of similar errors.",
        examples=["5a0c2e91b7d4"],
    ),
]
Who = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=128,
        description="Who requests this.",
        examples=["alice"],
    ),
]
Reason = Annotated[
    str,
    Meta(
        pattern=TEXT_PATTERN,
        min_length=1,
        max_length=1_000,
        description="The reason for this.",
        examples=["A message of a test run."],
    ),
]
PageLimit = Annotated[
    int,
    Meta(ge=1, le=PAGE_MAX, description="The maximum number of items on a page.", examples=[50]),
]
Cursor = Annotated[
    str,
    Meta(
        pattern=CURSOR_PATTERN,
        max_length=CURSOR_LENGTH_MAX,
        description="Where the page begins: `nextCursor` of the page before.",
    ),
]

IdempotencyKey = Annotated[
    str,
    Meta(
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="A value that is new for each thing to do, such as a UUID. A request that is sent again "
        "with the same key is executed once and gets the same answer.",
        examples=['"8e03978e-40d5-43e8-bc93-6894a57f9324"'],
    ),
]
IfMatch = Annotated[
    str,
    Meta(
        description="The `ETag` of what the client has seen: if it was changed meanwhile, the request is "
        "refused.",
        examples=['"1767605400000"'],
    ),
]
LastEventId = Annotated[
    str,
    Meta(
        description="The `id` of the last event that was received, as an EventSource sends it when it "
        "connects again: the stream goes on behind it.",
    ),
]
Preference = Annotated[
    str,
    Meta(
        description="`wait=N`: respond when what is asked for has happened, or after N seconds (at most 60).",
        examples=["wait=1"],
    ),
]

_is_product_id = re.compile(PRODUCT_ID_PATTERN).match


def is_product_id(text: str) -> bool:
    """Return whether this is a valid product id: one that can be the key of an event."""
    return (
        len(text) <= PRODUCT_ID_LENGTH_MAX
        and _is_product_id(text) is not None
        and text.isprintable()
    )


def canonical_uuid(text: str) -> str | None:
    """Return a UUID in lower case, as it is stored; None if the text is not a UUID."""
    lower = text.lower()
    return lower if is_canonical_uuid(lower) else None

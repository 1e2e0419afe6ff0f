"""Types of settings, with their limits and how to explain them.

A service declares its own settings with these, or with any other type that msgspec converts from a
text; `extra={"allowed": "…"}` says in words what is allowed.
"""

from typing import Annotated

import msgspec
from msgspec import Meta


class Span(msgspec.Struct, frozen=True):
    """A range to draw from, both ends included; written `1..3`, or `2` where the ends are equal."""

    low: float
    high: float

    @classmethod
    def parse(cls, written: object) -> "Span":
        """Return a number or `low..high` as a range.

        Raises `ValueError` for anything else, and for a range that is negative, endless or the
        wrong way round.
        """
        low, dots, high = str(written).partition("..")
        span = cls(float(low), float(high if dots else low))
        if not 0 <= span.low <= span.high < float("inf"):
            raise ValueError(written)
        return span

    def __str__(self) -> str:
        ends = (self.low,) if self.low == self.high else (self.low, self.high)
        return "..".join(f"{end:.15g}" for end in ends)


Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds = Annotated[float, Meta(ge=0, le=3_600)]
Retention = Annotated[float, Meta(ge=60, le=3_650 * 86_400)]
Name = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]+\Z", extra={"allowed": "letters, digits, - and _"})
]
BrokerUrl = Annotated[
    str,
    Meta(
        pattern=r"^(nats|tls)://\S+\Z",
        extra={"allowed": "nats://HOST:PORT or tls://HOST:PORT, several joined by commas"},
    ),
]
ApiPrefix = Annotated[
    str,
    Meta(
        pattern=r"^[$A-Za-z0-9_-]+(\.[$A-Za-z0-9_-]+)*\Z",
        extra={"allowed": "words of letters, digits, $, - and _, joined by dots"},
    ),
]
UserName = Annotated[str, Meta(pattern=r"^\S+\Z", extra={"allowed": "a name without spaces"})]
_OBJECT_NAME = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*\Z"
Factory = Annotated[
    str,
    Meta(
        pattern=_OBJECT_NAME,
        extra={"allowed": "package.module:function; it is called with the settings"},
    ),
]
SystemName = Annotated[
    str,
    Meta(
        pattern=_OBJECT_NAME,
        extra={"allowed": "package.module:name of a todoku.system.System"},
    ),
]
SubjectPrefix = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*)?\Z",
        extra={"allowed": "words of letters, digits, - and _, joined by dots"},
    ),
]

PublicUrl = Annotated[
    str,
    Meta(
        pattern=r"^https?://[A-Za-z0-9._\[\]:-]+(/[A-Za-z0-9._~/-]*)?\Z",
        extra={"allowed": "http(s)://HOST, with a path if there is one"},
    ),
]

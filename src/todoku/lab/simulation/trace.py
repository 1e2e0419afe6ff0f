"""Records what happened in a run, in order, for its digest and for debugging."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import msgspec

ORDER_SHOWN = 8
"""How many of the last characters of an order's id a line shows: the first ones are a timestamp."""


class Record(NamedTuple):
    """One event of a run, `at` seconds after the start, at a service or outside of all (`world`).

    `body` is the message concerned, if any.
    """

    at: float
    where: str
    what: str
    text: str
    body: bytes


class Head(msgspec.Struct):
    """The fields of an envelope that identify a message."""

    id: str
    type: str
    subject: str


class Source(msgspec.Struct):
    """The field of an envelope that names the publisher."""

    source: str


_decode_head = msgspec.json.Decoder(Head).decode
_decode_source = msgspec.json.Decoder(Source).decode


class Trace:
    """Collect the records of one run."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.records: list[Record] = []
        self._now = now

    def __len__(self) -> int:
        return len(self.records)

    def note(self, where: str, what: str, text: str = "", body: bytes = b"") -> None:
        """Add a record with the current time."""
        self.records.append(Record(self._now(), where, what, text, body))

    def digest(self) -> str:
        """Return a hash that is equal only for runs with equal records, to the byte."""
        digest = hashlib.blake2b(digest_size=16)
        for at, where, what, text, body in self.records:
            digest.update(f"{at!r}\0{where}\0{what}\0{text}\0{len(body)}\n".encode())
            digest.update(body)
        return digest.hexdigest()

    def lines(self, orders: Collection[str] | None = None) -> Iterator[str]:
        """Yield a line for each record; with `orders`, only for those that concern them or no order."""
        names: dict[str, str] = {}
        for record in self.records:
            head = head_of(record.body)
            if head is not None:
                names[head.id] = f"{head.type} {head.subject[-ORDER_SHOWN:]}"
            text = record.text
            for event_id in [word for word in text.split() if word in names]:
                text = text.replace(event_id, names[event_id])
            if head is not None:
                text = f"{names[head.id]} {text}"
            elif record.body:
                text = f"{record.body[:60]!r} {text}"
            if orders is None or _concerns(record, text, orders):
                yield f"{record.at:9.3f}  {record.where:<11}  {record.what:<9}  {text}".rstrip()


def head_of(body: bytes) -> Head | None:
    """Return the identifying fields of a message, None if it cannot be decoded."""
    try:
        return _decode_head(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def source_of(body: bytes) -> str | None:
    """Return the service that published a message, None if it cannot be decoded."""
    try:
        return _decode_source(body).source
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _concerns(record: Record, text: str, orders: Collection[str]) -> bool:
    if record.what in ("fault", "start", "crash", "heal"):
        return True
    return any(
        order[-ORDER_SHOWN:] in text or order in text or order.encode() in record.body
        for order in orders
    )

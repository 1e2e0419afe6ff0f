"""Receipts: how a subscriber tells the process that published events that it has them.

A receipt goes to `receipts.PUBLISHER.READER.OWNER` over core NATS. The reader is a part of the subject, so
that permissions of the broker hold it; the owner is the process that published the events, named by a header
of each message, so that no other process of that service swallows the receipt.
"""

from hashlib import blake2b
from typing import NamedTuple

import msgspec

OWNER_BYTES = 8


class ReceiptMessage(msgspec.Struct, frozen=True):
    """A receipt on the wire: the subscriber `reader` has these events."""

    reader: str
    ids: tuple[str, ...]


class Publisher(NamedTuple):
    """The service that published an event, and the process that did so: empty for version 0.2 and before."""

    service: str
    owner: str = ""


encode_receipt = msgspec.json.Encoder().encode
decode_receipt = msgspec.json.Decoder(ReceiptMessage).decode


def owner_token(owner: str) -> str:
    """Return the name of a process as a word of a subject."""
    return blake2b(owner.encode(), digest_size=OWNER_BYTES).hexdigest()


def receipt_subject(publisher: Publisher, reader: str) -> str:
    """Return where `reader` sends its receipts for events of `publisher`.

    A process of the version before names no owner, and listens only to the subject of its service.
    """
    service, owner = publisher
    return f"receipts.{service}.{reader}.{owner}" if owner else f"receipts.{service}"

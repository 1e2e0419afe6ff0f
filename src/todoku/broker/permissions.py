"""What each credential may do at the broker: derived from the names of the services alone.

A service publishes its own events and receipts in its own name, reads through its own durables, and
listens to what is for it. Source: docs.nats.io, "Authorization", and "NATS API Reference" for the subjects.
"""

from collections.abc import Iterator, Sequence

import msgspec

from todoku.broker.partitions import partitioned_durables

OPERATOR = "up"
"""Who may do everything, such as deleting the stream: `todoku up`, chaos, benchmarks."""

READER = "reader"
"""Who may look at the stream and its consumers, and change nothing: `todoku doctor`."""

ROLLED_BACK = "broker.rolled_back"
"""Where a service that may not update the stream says that it was rolled back."""

API_PREFIX = "$JS.API"
"""Where JetStream takes requests in the account that has the stream."""

PURPOSES = ("", "-recall", "-reread")
"""The durables of a service: the one that it consumes with, and those of a recovery."""

ELECTED = "$JS.EVENT.ADVISORY.{}.LEADER_ELECTED"
EVERYTHING = (">",)


class Permissions(msgspec.Struct, frozen=True):
    """The subjects on which a credential may publish and subscribe."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


class Place(msgspec.Struct, frozen=True):
    """Where an installation is at a broker: its stream, and the prefix of its subjects without a dot."""

    stream: str
    prefix: str = ""

    def subject(self, subject: str) -> str:
        """Return a subject as it is on the wire."""
        return f"{self.prefix}.{subject}" if self.prefix else subject

    def durable(self, reader: str) -> str:
        """Return the name of a durable as it is at the broker."""
        return f"{self.prefix.replace('.', '-')}-{reader}" if self.prefix else reader

    def api(self, request: str, *names: str) -> str:
        """Return the subject of a request about the stream."""
        return ".".join((f"{API_PREFIX}.{request}.{self.stream}", *names))


def inbox_of(name: str) -> str:
    """Return the prefix of the subjects on which this credential gets replies."""
    return f"_INBOX_{name}"


def of_operator() -> Permissions:
    """Return what `todoku up` may do."""
    return Permissions(EVERYTHING, EVERYTHING)


def of_service(name: str, place: Place, *, updates: bool) -> Permissions:
    """Return what a service may do; one of them creates the stream and `updates` its configuration: a stream
    can be configured so that it forges events."""
    durables = [*(name + purpose for purpose in PURPOSES), *partitioned_durables(name)]
    own = [place.durable(each) for each in durables]
    publish = [
        place.subject(f"{name}.>"),
        place.subject(f"receipts.*.{name}.>"),
        place.subject(f"ended.{name}"),
        place.subject(ROLLED_BACK),
        *([place.api("STREAM.CREATE"), place.api("STREAM.UPDATE")] if updates else []),
        *_looking(place),
        *_consuming(own, place),
    ]
    subscribe = [
        f"{inbox_of(name)}.>",
        place.subject(f"receipts.{name}"),
        place.subject(f"receipts.{name}.>"),
        place.subject(f"ended.{name}"),
        *([place.subject(ROLLED_BACK)] if updates else []),
        f"{ELECTED.format('STREAM')}.{place.stream}",
        *(f"{ELECTED.format('CONSUMER')}.{place.stream}.{durable}" for durable in own),
    ]
    return Permissions(tuple(publish), tuple(subscribe))


def of_reader(place: Place) -> Permissions:
    """Return what those may do who only look."""
    return Permissions(tuple(_looking(place)), (f"{inbox_of(READER)}.>",))


def of_listener(name: str, place: Place) -> Permissions:
    """Return what a program outside the system may do: consume events, through a durable of its name."""
    durable = place.durable(name)
    return Permissions((*_looking(place), *_consuming([durable], place)), (f"{inbox_of(name)}.>",))


def _looking(place: Place) -> Iterator[str]:
    yield place.api("STREAM.INFO")
    yield place.api("STREAM.MSG.GET")
    yield place.api("CONSUMER.INFO", "*")


def _consuming(durables: Sequence[str], place: Place) -> Iterator[str]:
    """Yield what is needed to create, read, resume and delete these durables."""
    for durable in durables:
        for request in ("CREATE", "MSG.NEXT", "PAUSE", "DELETE"):
            yield place.api(f"CONSUMER.{request}", durable)
        yield f"$JS.ACK.{place.stream}.{durable}.>"

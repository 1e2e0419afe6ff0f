"""Divide the stream by what its events are about, so that each process of a service reads a part of it.

An event about `key` is published on `<subject>.<slot>`. A partition is a set of slots, and has a durable of
its own. There are 12 slots for ever, so that the number of partitions can be changed without a change on the
wire.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from todoku.broker.port import Broker, Progress

SLOTS = 12
NUMBERS = (1, 2, 3, 4, 6)
"""How many partitions there may be: each number divides the slots, so that partitions are alike."""

_SLOT_LENGTH_MAX = len(str(SLOTS - 1))


class Partition(msgspec.Struct, frozen=True):
    """One of `count` partitions of what a service reads; the whole of it if `count` is 1."""

    service: str
    number: int = 0
    count: int = 1

    @property
    def durable(self) -> str:
        """The name of its durable."""
        return self.service if self.count == 1 else f"{self.service}-{self.count}-{self.number}"

    def filters(self, subjects: Iterable[str]) -> list[str]:
        """Return the subjects that its durable reads. What has no slot belongs to the first partition."""
        if self.count == 1:
            return [wire for subject in subjects for wire in (subject, f"{subject}.*")]
        slots = [f".{slot}" for slot in range(self.number, SLOTS, self.count)]
        if self.number == 0:
            slots.insert(0, "")
        return [subject + slot for subject in subjects for slot in slots]


def partitions_of(service: str, count: int) -> list[Partition]:
    """Return all partitions of what a service reads."""
    return [Partition(service, number, count) for number in range(count)]


def with_slot(subject: str, key: str) -> str:
    """Return the subject on which an event about `key` is published."""
    return f"{subject}.{zlib.crc32(key.encode()) % SLOTS}"


def without_slot(subject: str) -> str:
    """Return the subject of the event that came on this subject, with or without a slot."""
    if not subject[-1:].isdigit():
        return subject
    event, _, slot = subject.rpartition(".")
    if slot.isdecimal() and len(slot) <= _SLOT_LENGTH_MAX and int(slot) < SLOTS and event:
        return event
    return subject


async def progress_of(broker: Broker, services: Sequence[str], count: int) -> Progress:
    """Return how far the stream and these services are; where they may read in `count` partitions, through
    whatever number of them has read most."""
    if count == 1:
        return await broker.progress(services)
    progress = await broker.progress([each for name in services for each in durables_of(name)])
    places = {name: most_consumed(progress.consumed, name) for name in services}
    consumed = {name: place for name, place in places.items() if place is not None}
    return msgspec.structs.replace(progress, consumed=consumed)


def durables_of(service: str) -> list[str]:
    """Return the durables through which a service reads, with any number of partitions."""
    return [each.durable for count in NUMBERS for each in partitions_of(service, count)]


def partitioned_durables(service: str) -> list[str]:
    """Return those through which a service reads only a part."""
    return [durable for durable in durables_of(service) if durable != service]


def most_consumed(consumed: Mapping[str, int], service: str) -> int | None:
    """Return up to where a service has acknowledged everything that it reads, given this of its durables;
    None if none of them says so.

    All partitions of one number read everything, as the one durable does: what has been read with one
    number is not read again with another.
    """
    floors = []
    for count in NUMBERS:
        durables = [each.durable for each in partitions_of(service, count)]
        if all(durable in consumed for durable in durables):
            floors.append(min(consumed[durable] for durable in durables))
    return max(floors, default=None)

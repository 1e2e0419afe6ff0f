"""Bugs: processes divide what they read, and not all of it is read."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from simulation import planting
from simulation.planting import WrappedBroker, mutant_of_partitions
from todoku.broker.port import Progress, StartAfter
from todoku.lab.simulation.wiring import Wire


@mutant_of_partitions
def slot_that_no_durable_reads() -> Wire:
    """The durables of the partitions leave out one slot of each subject."""

    class Broker(WrappedBroker):
        async def subscribe(
            self, durable: str, subjects: Sequence[str], deliver: Callable[..., None], **start: Any
        ) -> Any:
            read = [subject for subject in subjects if not subject.endswith(".7")]
            return await super().subscribe(durable, read, deliver, **start)

    return planting.broker(Broker)


@mutant_of_partitions
def partition_that_nobody_reads() -> Wire:
    """Each process leaves the last partition to the others."""

    class Broker(WrappedBroker):
        async def subscribe(
            self, durable: str, subjects: Sequence[str], deliver: Callable[..., None], **start: Any
        ) -> Any:
            subscription = await super().subscribe(durable, subjects, deliver, **start)
            return _Deaf() if durable.endswith("-3-2") else subscription

    return planting.broker(Broker)


@mutant_of_partitions
def partition_begins_where_the_stream_ends() -> Wire:
    """The durable of a partition begins behind what is in the stream, instead of where its service was."""

    class Broker(WrappedBroker):
        async def subscribe(
            self, durable: str, subjects: Sequence[str], deliver: Callable[..., None], **start: Any
        ) -> Any:
            if "-3-" in durable:
                progress: Progress = await self.inner.progress([])
                start["start_after"] = StartAfter(progress.stream_epoch, progress.last_sequence)
            return await super().subscribe(durable, subjects, deliver, **start)

    return planting.broker(Broker)


@mutant_of_partitions
def one_partition_speaks_for_all() -> Wire:
    """What one partition has consumed counts as consumed by all: the evidence for sending again."""

    class Broker(WrappedBroker):
        async def progress(self, readers: Sequence[str]) -> Progress:
            progress: Progress = await self.inner.progress(readers)
            places = dict(progress.consumed)
            for durable in places:
                service, _, number = durable.partition("-")
                if number:
                    alike = [each for each in places if each.startswith(f"{service}-3-")]
                    places[durable] = max((places[each] for each in alike), default=0)
            return msgspec.structs.replace(progress, consumed=places)

    return planting.broker(Broker)


class _Deaf:
    """A subscription that requests nothing."""

    def want(self, count: int) -> None:
        """Request nothing."""

    def ack(self, deliveries: Sequence[Any]) -> None:
        """Acknowledge nothing."""

    async def stop(self) -> None:
        """Stop."""

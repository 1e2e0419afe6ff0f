"""Which partitions a process reads: its share, and what nobody else reads at present."""

from collections.abc import Collection, Mapping
from typing import Final

TAKEOVER_SECONDS: Final = 30.0
"""How long a process reads a partition whose own process did not read it."""


class PartitionShare:
    """Divides the partitions of a service among the processes that live, without a table of owners.

    Processes that see the same leases divide alike. A process may have a lease and read nothing: it hangs,
    or has lost the broker. So each process checks whether all partitions make progress, and for a while also
    reads one that does not. Two that read one partition only wait for each other's rows.
    """

    def __init__(self, owner: str, count: int) -> None:
        self._owner = owner
        self._count = count
        self._places: dict[int, int] = {}
        self._taken_over: dict[int, float] = {}
        """Until when, by the monotonic clock."""

    def numbers(self, alive: Collection[str], now: float) -> frozenset[int]:
        """Return the partitions to read. `alive` are the processes with a lease, `now` is monotonic."""
        self._taken_over = {n: until for n, until in self._taken_over.items() if until > now}
        owners = sorted({self._owner, *alive})
        own = range(owners.index(self._owner), self._count, len(owners))
        return frozenset(own) | self._taken_over.keys()

    def look(self, places: Mapping[int, int], last_sequence: int, now: float) -> None:
        """Compare with the last call: take over partitions that have messages, and have made no progress.

        `places` says of each partition up to which sequence of the stream it has been read.
        """
        for number, place in places.items():
            if place < last_sequence and place == self._places.get(number):
                self._taken_over[number] = now + TAKEOVER_SECONDS
        self._places = dict(places)

"""Which partitions a process reads: its share, and what nobody else reads at present."""

from collections.abc import Collection, Mapping
from typing import Final

HELPING_SECONDS: Final = 30.0
"""How long a process reads a partition of another one that did not."""


class PartitionShare:
    """Divides the partitions of a service among the processes that live, without a table of owners.

    All who know of the same processes divide alike. A process may live and read nothing: it hangs, or
    has lost the broker. So the others look whether each partition goes on, and read one that does not,
    too, for a while. Two that read one partition only wait for each other's rows.
    """

    def __init__(self, owner: str, count: int) -> None:
        self._owner = owner
        self._count = count
        self._places: dict[int, int] = {}
        self._helped: dict[int, float] = {}
        """Until when, by the monotonic clock."""

    def numbers(self, alive: Collection[str], now: float) -> frozenset[int]:
        """Return the partitions to read. `alive` are the processes with a lease, `now` is monotonic."""
        self._helped = {n: until for n, until in self._helped.items() if until > now}
        owners = sorted({self._owner, *alive})
        own = range(owners.index(self._owner), self._count, len(owners))
        return frozenset(own) | self._helped.keys()

    def look(self, places: Mapping[int, int], last_sequence: int, now: float) -> None:
        """Compare with the last look: note the partitions that have messages, and have not gone on.

        `places` says of each partition up to which sequence of the stream it has been read.
        """
        for number, place in places.items():
            if place < last_sequence and place == self._places.get(number):
                self._helped[number] = now + HELPING_SECONDS
        self._places = dict(places)

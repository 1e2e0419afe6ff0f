"""Row locks of simulated transactions: who holds which, and who waits for whom."""

import asyncio
from typing import Any, NamedTuple

import msgspec

from todoku.database import DatabaseUnavailable
from todoku.lab.simulation.stepped import can_wait, wait

LOCK_SECONDS_MAX = 5.0
"""How long a transaction waits for a lock, as PostgreSQL's `lock_timeout` in `todoku.database`."""


_encode = msgspec.json.Encoder().encode


class Row(NamedTuple):
    """A row of a table, by its key as JSON."""

    table: str
    key: str


class Transaction:
    """What a transaction has done so far: its writes in order, and the rows that it knows to be its own.

    `locked` are the rows that it has locked before it changed them, `inserted` those that it has added.
    """

    def __init__(self) -> None:
        self.writes: list[tuple[str, Any]] = []
        self.locked: set[Row] = set()
        self.inserted: set[Row] = set()
        self.waits = 0
        self.ended = asyncio.Event()

    def owns(self, row: Row) -> bool:
        """Return whether it has locked or added the row, or the one that the row is a part of: whose key
        its own begins with."""
        own = self.locked | self.inserted
        if row in own:
            return True
        keys, values = {each.key for each in own}, msgspec.json.decode(row.key)
        return any(_encode(values[:n]).decode() in keys for n in range(1, len(values)))

    @property
    def over(self) -> bool:
        """Return whether it is committed or rolled back."""
        return self.ended.is_set()


class RowLocks:
    """The locks of one database. A lock lasts until the transaction ends."""

    def __init__(self) -> None:
        self._holders: dict[Row, Transaction] = {}
        self._waits_for: dict[Transaction, Transaction] = {}

    def holds(self, transaction: Transaction, row: Row) -> bool:
        """Return whether this transaction has locked the row."""
        return self._holders.get(row) is transaction

    def is_free(self, transaction: Transaction, row: Row) -> bool:
        """Return whether no other transaction has locked the row."""
        return self._holders.get(row, transaction) is transaction

    def take(self, transaction: Transaction, row: Row) -> bool:
        """Lock the row if it is free; return whether it is locked now."""
        return self._holders.setdefault(row, transaction) is transaction

    def release(self, transaction: Transaction) -> None:
        """Release all locks of a transaction that ends, and wake those that wait for it."""
        self._holders = {
            row: holder for row, holder in self._holders.items() if holder is not transaction
        }
        transaction.ended.set()

    def wait_for(self, transaction: Transaction, row: Row) -> None:
        """Wait until the transaction that has locked the row ends.

        Raises `DatabaseUnavailable` after `LOCK_SECONDS_MAX`, and at once if that transaction waits for
        this one.
        """
        holder = self._holders[row]
        transaction.waits += 1
        if self._leads_to(holder, transaction):
            raise DatabaseUnavailable(f"deadlock on {row.table} {row.key}")
        if not can_wait():
            raise DatabaseUnavailable(f"{row.table} {row.key} is locked")
        self._waits_for[transaction] = holder
        try:
            wait(_within_bound(holder.ended))
        except TimeoutError:
            raise DatabaseUnavailable(f"{row.table} {row.key} is locked for too long") from None
        finally:
            del self._waits_for[transaction]

    def _leads_to(self, waiting: Transaction, transaction: Transaction) -> bool:
        """Return whether a transaction waits for another, directly or through others."""
        following: Transaction | None = waiting
        while following is not None and following is not transaction:
            following = self._waits_for.get(following)
        return following is transaction


async def _within_bound(ended: asyncio.Event) -> None:
    async with asyncio.timeout(LOCK_SECONDS_MAX):
        await ended.wait()

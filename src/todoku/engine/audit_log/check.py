"""Check the chains of an audit log against their anchors. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from todoku.database import to_microseconds
from todoku.engine.audit_log.entries import BEGIN, NO_HASH, RESTORED, Head, read_heads, row_hash


class ChainRow(NamedTuple):
    """A row of a chain: `said` is what it says, in the order in which it is hashed."""

    chain: str
    sequence: int
    at: datetime
    said: tuple[Any, ...]
    hash: bytes


class Anchor(msgspec.Struct, frozen=True):
    """The hash of a row, in hexadecimal, as another service keeps it since `kept_at`."""

    chain: str
    sequence: int
    hash: str
    kept_at: datetime


class ChainProblem(msgspec.Struct, frozen=True):
    """What is wrong with a chain."""

    chain: str
    problem: str


class LogState(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of a log has found: `problems`; when it was restored; and how many rows no anchor
    vouches for yet, with the time of the oldest of them."""

    problems: tuple[ChainProblem, ...] = ()
    rows: int = 0
    chains: int = 0
    restored_at: tuple[datetime, ...] = ()
    not_anchored: int = 0
    oldest_not_anchored: datetime | None = None


def check_log(
    begins: Sequence[ChainRow], rows: Iterable[ChainRow], anchors: Sequence[Anchor]
) -> LogState:
    """Check all rows, which come by chain and sequence. `begins` are those that begin a chain, `anchors` what
    other services keep."""
    named = {begin.chain: _heads(begin) for begin in begins}
    expected = _Expected(named, anchors)
    problems: list[ChainProblem] = []
    last: dict[str, int] = {}
    count = not_anchored = 0
    oldest: datetime | None = None
    for chain, of_chain in groupby(rows, key=attrgetter("chain")):
        found = _Chain(chain, expected.hashes.get(chain, {}))
        anchored = expected.anchored.get(chain, 0)
        for row in of_chain:
            found.add(row)
            if row.sequence > anchored:
                not_anchored += 1
                oldest = row.at if oldest is None else min(oldest, row.at)
        count += found.rows
        last[chain] = found.last_sequence
        problems += found.problems()
    restores = [begin for begin in begins if begin.said[1] == RESTORED]
    problems += _missing(expected, last, restores, named)
    return LogState(
        problems=tuple(problems),
        rows=count,
        chains=len(last),
        restored_at=tuple(begin.at for begin in restores),
        not_anchored=not_anchored,
        oldest_not_anchored=oldest,
    )


class _Expected:
    """What the anchors, and the chains that began later, say about rows: their hashes, by chain and sequence;
    and up to which row of a chain there is an anchor that vouches for it."""

    def __init__(self, named: Mapping[str, Sequence[Head]], anchors: Sequence[Anchor]) -> None:
        self.hashes: dict[str, dict[int, str]] = {}
        self.anchored: dict[str, int] = {}
        for anchor in anchors:
            self._add(anchor.chain, anchor.sequence, anchor.hash)
            self._note_anchored(anchor.chain, anchor.sequence)
        for chain in sorted(named, reverse=True):
            for head in named[chain]:
                self._add(head.chain, head.sequence, head.hash.hex())
                if self.anchored.get(chain):
                    self._note_anchored(head.chain, head.sequence)

    def _add(self, chain: str, sequence: int, digest: str) -> None:
        # The hash that somebody else keeps comes first.
        self.hashes.setdefault(chain, {}).setdefault(sequence, digest)

    def _note_anchored(self, chain: str, sequence: int) -> None:
        self.anchored[chain] = max(sequence, self.anchored.get(chain, 0))


class _Chain:
    """The rows of one chain, checked one after the other."""

    def __init__(self, chain: str, expected: Mapping[int, str]) -> None:
        self.rows = 0
        self.last_sequence = 0
        self._chain = chain
        self._expected = expected
        self._before: bytes | None = NO_HASH
        self._changed: list[int] = []
        self._gaps: list[str] = []
        self._replaced: list[int] = []
        self._no_begin = False

    def add(self, row: ChainRow) -> None:
        """Check the next row."""
        self.rows += 1
        if row.sequence != self.last_sequence + 1:
            self._gaps.append(_range(self.last_sequence + 1, row.sequence - 1))
            self._before = None
        elif row.sequence == 1 and row.said[0] != BEGIN:
            self._no_begin = True
        if self._before is not None and self._hash_of(row, self._before) != row.hash:
            self._changed.append(row.sequence)
        expected = self._expected.get(row.sequence)
        if expected is not None and expected != row.hash.hex():
            self._replaced.append(row.sequence)
        self.last_sequence, self._before = row.sequence, row.hash

    def problems(self) -> Iterator[ChainProblem]:
        """Yield what is wrong with the rows that are there."""
        if self._no_begin:
            yield ChainProblem(self._chain, "its first row does not begin a chain")
        for gap in self._gaps:
            yield ChainProblem(self._chain, f"{gap} missing")
        if self._changed:
            yield ChainProblem(
                self._chain, f"{_rows(self._changed)} changed, or exchanged with another"
            )
        if self._replaced:
            yield ChainProblem(
                self._chain,
                f"it was written anew: the hash of row {self._replaced[0]} is not the one that was anchored",
            )

    def _hash_of(self, row: ChainRow, before: bytes) -> bytes:
        return row_hash(before, (row.chain, row.sequence, to_microseconds(row.at), *row.said))


def _missing(
    expected: _Expected,
    last: Mapping[str, int],
    restores: Sequence[ChainRow],
    named: Mapping[str, Sequence[Head]],
) -> Iterator[ChainProblem]:
    """Yield what was cut off at the end of chains, and chains that are not there at all. What a restore has
    lost is no problem: it says where each chain ended then."""
    for chain, hashes in sorted(expected.hashes.items()):
        vouched, there = max(hashes), last.get(chain, 0)
        if vouched <= there or _lost_by_restore(chain, there, restores, named):
            continue
        if there:
            text = f"it was cut off: {_range(there + 1, vouched)} missing at its end"
        else:
            text = f"the whole chain is missing, of {vouched:,} rows at least"
        yield ChainProblem(chain, text)


def _lost_by_restore(
    chain: str, there: int, restores: Sequence[ChainRow], named: Mapping[str, Sequence[Head]]
) -> bool:
    for restore in restores:
        if restore.chain <= chain:
            continue
        ends = {head.chain: head.sequence for head in named[restore.chain]}
        if ends.get(chain, 0) == there:
            return True
    return False


def _heads(begin: ChainRow) -> list[Head]:
    try:
        return read_heads(begin.said[4])
    except ValueError:
        return []  # The row was changed, which its hash tells.


def _range(first: int, last: int) -> str:
    return f"row {first:,} is" if first == last else f"rows {first:,} to {last:,} are"


def _rows(sequences: Sequence[int]) -> str:
    more = len(sequences) - 1
    return f"row {sequences[0]:,}{f' and {more:,} more were' if more else ' was'}"

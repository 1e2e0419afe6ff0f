"""Checks what holds where several processes of a service share a database.

R1: the rows that a transaction changes are locked, and two processes never decide on the same due row.
R6: a process that lives keeps its lease, and its events stay its own as long as that has not expired.
R7: no process takes this database for a restored one, which it never is.
"""

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from todoku.database import to_microseconds
from todoku.engine import Agenda, Due
from todoku.lab.simulation.loop import VirtualClock
from todoku.lab.simulation.row_locks import Transaction
from todoku.lab.simulation.shared_driver import transaction_of
from todoku.lab.simulation.wiring import Parts

if TYPE_CHECKING:
    from todoku.lab.simulation.database import SharedDatabase
    from todoku.lab.simulation.node import Node

Fail = Callable[..., None]

QUIET_SECONDS = 35
"""How long the processes are watched once the system is quiescent: longer than a lease lasts."""

DECISION_SECONDS_MAX = 5.0
"""How long a process that has locked due rows takes to decide on them at most."""

UNLOCKED_SECONDS_MAX = 2.0
"""How long a process that has read without locks takes to decide at most."""

ADOPTING_MAX = 30.0
"""How many seconds a process takes to adopt events at most, with all injected delays."""

_OWNERS = "SELECT event_id, reader, owner FROM outbox"
_LEASES = "SELECT owner, expires_at FROM leases"
_RECOVERY = "SELECT 1 FROM stream_positions WHERE incarnation = 'recovery'"

DueRowsTaken = dict[tuple[str, str], Transaction]
"""By agenda and key: the transaction that has found the due row."""


def watch_due_rows(parts: Parts, database: "SharedDatabase", fail: Fail) -> Parts:
    """Check R1 whenever a process looks for due rows."""
    agendas = [_watched(agenda, database, fail) for agenda in parts.service.agendas]
    return msgspec.structs.replace(parts, service=replace(parts.service, agendas=agendas))


def _watched(agenda: Agenda, database: "SharedDatabase", fail: Fail) -> Agenda:
    watched: Any = copy.copy(agenda)
    for name in ("find", "find_corrected"):
        setattr(watched, name, _checked(getattr(watched, name), agenda.name, database, fail))
    found: Agenda = watched
    return found


def _checked(
    find: Callable[..., list[Due]], name: str, database: "SharedDatabase", fail: Fail
) -> Callable[..., list[Due]]:
    taken = database.due_rows

    def checked(connection: Any, *arguments: Any) -> list[Due]:
        transaction = transaction_of(connection)
        waits = transaction.waits
        found = find(connection, *arguments)
        # Two agendas may find the same row, which is locked once.
        keys = {key for (_, key), holder in taken.items() if holder is transaction}
        if len(transaction.locked) < len(keys | {due.key for due in found}):
            fail("R1", f"due rows of {name} are not locked", *(due.key for due in found))
        if transaction.waits > waits:
            fail("R1", f"a process waited for a due row of {name} on which another one decides")
        for due in found:
            other = taken.setdefault((name, due.key), transaction)
            if other is not transaction and not other.over:
                fail("R1", f"two processes decide on the due row {due.key} of {name}", due.key)
            taken[name, due.key] = transaction
        if found:
            database.be_slow("slow-decision", DECISION_SECONDS_MAX)
        return found

    return checked


class _Interrupted:
    """A store that lets other processes run between what it reads without locks and what it writes."""

    def __init__(self, inner: Any, database: "SharedDatabase") -> None:
        self._inner = inner
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def load_unlocked(self, *arguments: Any) -> Any:
        found = self._inner.load_unlocked(*arguments)
        self._database.be_slow("slow-unlocked", UNLOCKED_SECONDS_MAX)
        return found


def interrupt_unlocked(parts: Parts, database: "SharedDatabase") -> Parts:
    """Let others change what a batch has read without locks, where its store does that."""
    store: Any = parts.service.store
    if not hasattr(store, "load_unlocked"):
        return parts
    interrupted: Any = _Interrupted(store, database)
    return msgspec.structs.replace(parts, service=replace(parts.service, store=interrupted))


class ReplicaChecker:
    """Checks the leases of a service whose processes share a database."""

    def __init__(
        self,
        database: "SharedDatabase",
        nodes: Sequence["Node"],
        lease_seconds: float,
        fail: Fail,
    ) -> None:
        self._database = database
        self._nodes = nodes
        self._lease_seconds = lease_seconds
        self._fail = fail
        self._owners: Mapping[tuple[str, str], str] = {}
        self._leases: Mapping[str, int] = {}
        self._leased_since: Mapping[str, float] = {}

    def check_commit(self) -> None:
        """Check R7; and R6: events are adopted only from owners whose lease has expired.

        An owner may have renewed an expired lease while another process was adopting: so only those
        count that have had one for longer than that takes.
        """
        if self._database.look(_RECOVERY):
            self._fail("R7", "a recovery has begun, and nothing was restored")
        seconds = asyncio.get_running_loop().time()
        owners = {(key, reader): owner for key, reader, owner in self._database.look(_OWNERS)}
        if self._clocks_agree():
            now = _now()
            for row, owner in owners.items():
                before = self._owners.get(row, owner)
                lasts = self._leases.get(before, 0) >= now
                if (
                    before != owner
                    and lasts
                    and self._leased_since[before] < seconds - ADOPTING_MAX
                ):
                    self._fail("R6", f"{owner} adopted an event of {before}, whose lease lasts")
        self._owners, self._leases = owners, dict(self._database.look(_LEASES))
        since = self._leased_since
        self._leased_since = {owner: since.get(owner, seconds) for owner in self._leases}

    def check_leases(self, healed: float) -> None:
        """Check R6: whoever could write for as long as a lease lasts, without a fault, has one."""
        leases = dict(self._database.look(_LEASES))
        now = _now()
        begun_by = asyncio.get_running_loop().time() - self._lease_seconds
        if healed > begun_by or not self._clocks_agree():
            return
        for node in self._nodes:
            able = node.able_since is not None and node.able_since <= begun_by
            if able and leases.get(node.owner, 0) < now:
                self._fail("R6", f"{node.owner} lives, and its lease has expired")

    def _clocks_agree(self) -> bool:
        return all(node.clock_offset == 0 and not node.clock_was_set for node in self._nodes)


def _now() -> int:
    now = to_microseconds(VirtualClock().now())
    assert now is not None
    return now

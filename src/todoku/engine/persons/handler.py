"""Erase persons, in the transactions of the writer."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import Connection, delete, select, update

from todoku.database import among
from todoku.engine.dead_letters import DeadLetterState
from todoku.engine.persons.commands import (
    ErasedPerson,
    ErasePerson,
    PersonHasOpenWork,
    UnknownPerson,
)
from todoku.engine.persons.erasures import Erasure, digest_of
from todoku.engine.persons.file import ErasureFile
from todoku.engine.persons.part import Persons
from todoku.engine.persons.scrub import ERASED
from todoku.events import ErasureEvent
from todoku.identity.keys import ApiKey

if TYPE_CHECKING:
    from todoku.engine.tables import EngineTables

log = structlog.get_logger(__name__)

ORDERS_MAX = 5_000
"""How many orders one erasure is about at most: its event has all of their ids."""

ORDERS_AT_ONCE = 500
NAMED_MAX = 20


def keep_erasure(state: Any, event: Any, now: datetime) -> tuple[Any, list[Any]]:
    """Decide nothing about the erasure of a person: the engine carries it out. A service lists this as the
    handler of the event."""
    return state, []


class PersonHandler:
    """Carries out erasures: what the service declares, dead letters, and the names in the audit log."""

    def __init__(
        self, persons: Persons | None, tables: "EngineTables", file: ErasureFile | None
    ) -> None:
        self._persons = persons
        self._tables = tables
        self._file = file
        self._to_file: list[Erasure] = []

    def erase_person(
        self, connection: Connection, command: ErasePerson, now: datetime
    ) -> tuple[ErasedPerson, list[ErasureEvent]]:
        """Erase a person here; return the events that tell the others. Raises `PersonError`."""
        assert self._persons is not None
        owner = self._persons.owner
        if owner is None:
            raise UnknownPerson("Another service knows which orders are whose: ask orders.")
        order_ids = list(owner.orders_of(connection, command.person))
        names = self._tables.audit_names.digests(connection, [command.person])
        keys = self._tables.api_keys.of_owner(connection, command.person)
        if not order_ids and not names and not keys:
            raise UnknownPerson("Nothing is stored about this person.")
        work = owner.open_work(connection, order_ids)
        valid = tuple(key.id for key in keys if key.refusal(now) is None)
        if work.orders or work.letters or valid:
            text = _open_text(work.orders, work.letters, valid)
            raise PersonHasOpenWork(text, work.orders, work.letters, valid)
        digest = digest_of(command.person)
        erasures = [
            Erasure(
                id=f"{command.id}-{number}",
                digest=digest,
                order_ids=tuple(order_ids[first : first + ORDERS_MAX]),
                erased_at=now,
            )
            for number, first in enumerate(range(0, len(order_ids) or 1, ORDERS_MAX), start=1)
        ]
        self.apply(connection, erasures)
        used = self._tables.idempotency_keys.table
        of_person = used.c.id.contains(f"\t{command.person}\t", autoescape=True)
        connection.execute(delete(used).where(of_person))
        events = [
            owner.event(erasure_id=each.id, digest=digest, order_ids=each.order_ids)
            for each in erasures
        ]
        result = ErasedPerson(erasures=tuple(each.id for each in erasures), orders=len(order_ids))
        return result, events

    def apply(self, connection: Connection, erasures: Sequence[Erasure]) -> None:
        """Erase these, and note it."""
        self._tables.erasures.add(connection, erasures)
        self._erase(connection, erasures)
        self._to_file += erasures

    def apply_events(
        self, connection: Connection, events: Sequence[ErasureEvent], now: datetime
    ) -> None:
        """Erase what other services have erased."""
        self.apply(
            connection,
            [
                Erasure(
                    id=event.erasure_id,
                    digest=event.digest,
                    order_ids=event.order_ids,
                    erased_at=now,
                )
                for event in events
            ],
        )

    def apply_again(self, connection: Connection) -> None:
        """Erase again whatever was ever erased here, since a recovery may have brought it back."""
        self._erase(connection, self._tables.erasures.all(connection))

    def keys_changed(self, connection: Connection) -> None:
        """Erase who owned these keys if that was erased before their last event came."""
        self._erase_owners(connection, self._tables.erasures.all(connection))

    def apply_file(self, connection: Connection) -> int:
        """Erase what the file has and this database lacks, because it is an older copy; return how many."""
        known = {each.id: each for each in self._tables.erasures.all(connection)}
        if self._file is None:
            return 0
        in_file = {each.id: each for each in self._file.read()}
        lacking = [each for id_, each in in_file.items() if id_ not in known]
        self.apply(connection, lacking)
        self._to_file = [each for id_, each in known.items() if id_ not in in_file]
        return len(lacking)

    def open_transaction(self) -> None:
        """Forget what a transaction that was rolled back would have added to the file."""
        self._to_file = []

    def committed(self) -> None:
        """Add what was erased to the file."""
        if self._to_file and self._file is not None:
            self._file.add(self._to_file)
        self._to_file = []

    def _erase(self, connection: Connection, erasures: Sequence[Erasure]) -> None:
        if not erasures:
            return
        order_ids = [order_id for each in erasures for order_id in each.order_ids]

        def is_person(name: str | None) -> bool:
            return any(each.is_about(name) for each in erasures)

        for first in range(0, len(order_ids), ORDERS_AT_ONCE):
            part = order_ids[first : first + ORDERS_AT_ONCE]
            if self._persons is not None:
                self._persons.erase(connection, part, is_person)
            _erase_letters(connection, self._tables, part)
        self._erase_owners(connection, erasures)
        names = self._tables.audit_names
        for name in filter(is_person, names.all(connection)):
            names.erase(connection, name)

    def _erase_owners(self, connection: Connection, erasures: Sequence[Erasure]) -> None:
        """Erase who owned the keys that ended before; those of a person who came back later stay."""
        if not erasures:
            return
        keys = self._tables.api_keys
        erased = {
            key.id: ERASED
            for key in keys.read(connection).values()
            if key.owner != ERASED and any(_is_owner(key, each) for each in erasures)
        }
        keys.rename_owners(connection, erased)


def _is_owner(key: ApiKey, erasure: Erasure) -> bool:
    return (
        key.created_at <= erasure.erased_at
        and key.refusal(erasure.erased_at) is not None
        and erasure.is_about(key.owner)
    )


def _erase_letters(
    connection: Connection, tables: "EngineTables", order_ids: Sequence[str]
) -> None:
    """Erase the messages of closed dead letters, and what their errors say."""
    letters, attempts = tables.dead_letters.table, tables.dead_letters.attempts
    given = {"ids": list(order_ids)}
    closed = among(letters.c.order_id, "ids"), letters.c.state != DeadLetterState.PARKED.value
    about = select(letters.c.id).where(*closed)
    connection.execute(
        update(attempts)
        .where(attempts.c.letter_id.in_(about), attempts.c.error.is_not(None))
        .values(error=ERASED),
        given,
    )
    failed = update(letters).where(*closed, letters.c.error.is_not(None))
    connection.execute(failed.values(error=ERASED), given)
    emptied = update(letters).where(*closed).values(body=b"", headers=None, traceback=None)
    connection.execute(emptied, given)


def _open_text(orders: Sequence[str], letters: Sequence[str], keys: Sequence[str]) -> str:
    kinds = (("orders", orders), ("dead letters", letters), ("valid API keys", keys))
    parts = [f"{name}: {_named(ids)}" for name, ids in kinds if ids]
    return (
        f"Open are {' and '.join(parts)}. A person can be erased when every order has ended, every dead"
        " letter is handled and every key is revoked: cancel what is still to be cancelled, and see"
        " `todoku dead list` and `todoku key list`."
    )


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - NAMED_MAX
    return ", ".join(ids[:NAMED_MAX]) + (f" and {more:,} more" if more > 0 else "")

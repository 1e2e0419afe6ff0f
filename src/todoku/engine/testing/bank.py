"""A small service to read, and to test the engine with: a bank.

It consumes payments into accounts and books them. A payment of nothing is an error of the decision; a
payment that overdraws an account is rejected by a CHECK of the table. A fee may fall due for an
account: then the bank takes it and sends a bill, which is an effect.
"""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar

import msgspec
from sqlalchemy import CheckConstraint, Column, Connection, MetaData, Text, bindparam, select

from todoku.database import Integer64, Timestamp, table, upsert
from todoku.engine.agenda import Agenda, context_column
from todoku.engine.cache import StateCache
from todoku.engine.messages import Due
from todoku.engine.service import Service
from todoku.engine.tables import EngineTables
from todoku.events import Envelope, Event

# The events: what others publish, and what the bank publishes.


class AccountEvent(Event, frozen=True, kw_only=True):
    """A fact about an account."""

    key_field: ClassVar[str] = "account_id"

    account_id: str


class Paid(AccountEvent, frozen=True, kw_only=True):
    """A customer has paid into an account, or taken from it."""

    subject: ClassVar[str] = "customers.paid"
    publisher: ClassVar[str] = "customers"

    amount: int


class Booked(AccountEvent, frozen=True, kw_only=True):
    """The bank has booked a payment."""

    subject: ClassVar[str] = "bank.booked"
    publisher: ClassVar[str] = "bank"

    balance: int


class Billed(AccountEvent, frozen=True, kw_only=True):
    """The bank has taken its fee."""

    subject: ClassVar[str] = "bank.billed"
    publisher: ClassVar[str] = "bank"


# Commands, effects and state.


class OpenAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Open an account, with a `fee` that is due at `due_at`."""

    account_id: str
    balance: int = 0
    fee: int = 0
    due_at: datetime | None = None


class SendBill(msgspec.Struct, frozen=True):
    """Send a bill: an effect."""

    account_id: str


class Account(msgspec.Struct, frozen=True):
    """An account, and the fee that it owes."""

    id: str
    balance: int
    fee: int = 0
    due_at: datetime | None = None


class NothingPaid(Exception):
    """A payment of nothing."""


class NothingDue(Exception):
    """There is no fee to take."""


# The decisions: pure functions.


def open_account(
    account: Account | None, command: OpenAccount, now: datetime
) -> tuple[Account, list[Event]]:
    """Open an account, or open it anew."""
    if command.balance == 0 and account is not None:
        raise NothingPaid
    return Account(command.account_id, command.balance, command.fee, command.due_at), []


def book(account: Account | None, event: Paid, now: datetime) -> tuple[Account, list[Event]]:
    """Book a payment; the first one opens the account."""
    if event.amount == 0:
        raise NothingPaid(event.account_id)
    before = account or Account(event.account_id, 0)
    after = msgspec.structs.replace(before, balance=before.balance + event.amount)
    return after, [Booked(account_id=after.id, balance=after.balance)]


def take_fee(account: Account, now: datetime) -> tuple[Account, list[object]]:
    """Take the fee that is due, and send a bill."""
    if account.fee == 0:
        raise NothingDue(account.id)
    paid = msgspec.structs.replace(account, balance=account.balance - account.fee, due_at=None)
    return paid, [Billed(account_id=account.id), SendBill(account.id)]


# The table and its store.

metadata = MetaData()

accounts = table(
    "accounts",
    metadata,
    Column("id", Text, primary_key=True),
    Column("balance", Integer64, nullable=False),
    Column("fee", Integer64, nullable=False),
    Column("due_at", Timestamp),
    context_column(),
    CheckConstraint("balance >= 0", name="nothing_overdrawn"),
)

_load = select(accounts).where(accounts.c.id.in_(bindparam("ids", expanding=True)))
_save = upsert(accounts, ["id"], ["balance", "fee", "due_at"])


class BankUnitOfWork:
    """The accounts that a batch touches."""

    def __init__(self, found: dict[str, Account]) -> None:
        self.before = found
        self.after = dict(found)
        self.recorded: list[Envelope] = []

    def view(self, subject: Any) -> Account | None:
        return self.after.get(_key(subject))

    def put(self, subject: Any, state: Account) -> None:
        self.after[_key(subject)] = state

    def record(self, envelope: Envelope) -> None:
        self.recorded.append(envelope)

    def fill_cache(self, cache: StateCache) -> None:
        cache.put("accounts", self.after)


class BankStore:
    """Loads and saves accounts."""

    metadata = metadata
    tables = EngineTables(metadata)

    def load(
        self, connection: Connection, subjects: Sequence[Any], cache: StateCache
    ) -> BankUnitOfWork:
        ids = {_key(subject) for subject in subjects}
        found = cache.get("accounts", ids)
        if missing := sorted(ids - found.keys()):
            rows = connection.execute(_load.with_for_update(), {"ids": missing})
            found |= {row.id: Account(row.id, row.balance, row.fee, row.due_at) for row in rows}
        return BankUnitOfWork(found)

    def save(self, connection: Connection, unit_of_work: BankUnitOfWork, now: datetime) -> None:
        changed = [
            a for key, a in unit_of_work.after.items() if a is not unit_of_work.before.get(key)
        ]
        if changed:
            connection.execute(_save, [msgspec.structs.asdict(account) for account in changed])


def _key(subject: Any) -> str:
    return str(subject.key if isinstance(subject, (Due, Event)) else subject.account_id)


bank: Service[Any] = Service(
    name="bank",
    store=BankStore(),
    command_handlers={OpenAccount: open_account},
    event_handlers={Paid: book},
    agendas=[
        Agenda(
            due_at=accounts.c.due_at,
            key=accounts.c.id,
            decide=take_fee,
            due_at_of=attrgetter("due_at"),
            key_of=attrgetter("id"),
            starts_effects=True,
            longest_pause_seconds=300,
        )
    ],
    publishes=(Booked, Billed),
)
"""The bank. Give it `effects={SendBill: …}` to run it (`dataclasses.replace`)."""

"""A service of the tests' own, small enough to see through: a bank.

It hears that somebody has paid into an account, and books it. What may go wrong with that: a payment
of nothing raises; a payment that overdraws an account is refused by a CHECK. An account may owe a fee
that falls due: then the fee is taken and a bill is sent, which is an effect outside.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Any, ClassVar, Final

import msgspec
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    MetaData,
    Text,
    bindparam,
    insert,
    select,
)

from todoku.broker import Delivery
from todoku.database import Database, Integer64, Timestamp, table, upsert
from todoku.engine import (
    Agenda,
    Due,
    EngineTables,
    Service,
    StateCache,
    Topology,
    context_column,
)
from todoku.engine.messages import IncomingEvent, PendingCommand
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.writer import Writer
from todoku.events import Context, Envelope, Event, fact_id, seal

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
OWNER: Final = "bank-1"


def account_id(number: int) -> str:
    """The id of an account; the engine's facts are about UUIDs."""
    return f"0198c2f0-7b1a-7c3e-9d55-{number:012x}"


class AccountEvent(Event, frozen=True, kw_only=True):
    """A fact about an account."""

    key_field: ClassVar[str] = "account_id"

    account_id: str


class Paid(AccountEvent, frozen=True, kw_only=True):
    """Somebody has paid into an account, or taken from it."""

    subject: ClassVar[str] = "customers.paid"
    publisher: ClassVar[str] = "customers"

    amount: int


class Booked(AccountEvent, frozen=True, kw_only=True):
    """The bank has booked a payment."""

    subject: ClassVar[str] = "bank.booked"
    publisher: ClassVar[str] = "bank"

    balance: int


class Billed(AccountEvent, frozen=True, kw_only=True):
    """The bank has taken its fee. Nobody reacts to it."""

    subject: ClassVar[str] = "bank.billed"
    publisher: ClassVar[str] = "bank"


class Refunded(AccountEvent, frozen=True, kw_only=True):
    """Somebody got money back; an earlier version of the bank reacted to that."""

    subject: ClassVar[str] = "customers.refunded"
    publisher: ClassVar[str] = "customers"


class OpenAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Open an account, which owes `fee` from `due_at` on."""

    account_id: str
    balance: int = 0
    fee: int = 0
    due_at: datetime | None = None


class SendBill(msgspec.Struct, frozen=True):
    """Send a bill: an effect outside."""

    account_id: str


class Account(msgspec.Struct, frozen=True):
    id: str
    balance: int
    fee: int = 0
    due_at: datetime | None = None


class NothingPaid(Exception):
    """A payment of nothing."""


class NothingDue(Exception):
    """There is no fee to take."""


def open_account(
    account: Account | None, command: OpenAccount, now: datetime
) -> tuple[Account, list[Event]]:
    if command.balance == 0 and account is not None:
        raise NothingPaid
    return Account(
        id=command.account_id, balance=command.balance, fee=command.fee, due_at=command.due_at
    ), []


def book(account: Account | None, event: Paid, now: datetime) -> tuple[Account, list[Event]]:
    if event.amount == 0:
        raise NothingPaid(event.account_id)
    before = account or Account(id=event.account_id, balance=0)
    after = msgspec.structs.replace(before, balance=before.balance + event.amount)
    return after, [Booked(account_id=after.id, balance=after.balance)]


def take_fee(account: Account, now: datetime) -> tuple[Account, list[Any]]:
    if account.due_at is None or account.due_at > now:
        return account, []
    if account.fee == 0:
        raise NothingDue(account.id)
    paid = msgspec.structs.replace(account, balance=account.balance - account.fee, due_at=None)
    return paid, [Billed(account_id=account.id), SendBill(account.id)]


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


class BankWorld:
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
    metadata = metadata
    tables = EngineTables(metadata)

    def load(self, connection: Connection, subjects: Sequence[Any], cache: StateCache) -> BankWorld:
        ids = {_key(subject) for subject in subjects}
        found = cache.get("accounts", ids)
        if missing := sorted(ids - found.keys()):
            rows = connection.execute(_load.with_for_update(), {"ids": missing})
            found |= {row.id: Account(row.id, row.balance, row.fee, row.due_at) for row in rows}
        return BankWorld(found)

    def save(self, connection: Connection, unit_of_work: BankWorld, now: datetime) -> None:
        changed = [
            a for key, a in unit_of_work.after.items() if a is not unit_of_work.before.get(key)
        ]
        if changed:
            connection.execute(_save, [msgspec.structs.asdict(account) for account in changed])


def _key(subject: Any) -> str:
    return str(subject.key if isinstance(subject, (Due, Event)) else subject.account_id)


store = BankStore()
bank = Service(
    name="bank",
    store=store,
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
        )
    ],
    publishes=(Booked, Billed),
)


def reader(name: str, *events: type[Event]) -> Service:
    """A service of which no more is known than what it reacts to."""
    return Service(name=name, store=store, event_handlers=dict.fromkeys(events, book))


topology = Topology([bank, reader("ledger", Booked), reader("statistics", Booked)])


def bank_database() -> Database:
    database = Database.in_memory()
    with database.transaction() as connection:
        metadata.create_all(connection)
    return database


class Branch:
    """A writer of the bank and its database, with what a test asks of both."""

    def __init__(
        self, database: Database | None = None, owner: str = OWNER, **settings: Any
    ) -> None:
        self.database = database or bank_database()
        self.tables = store.tables
        self.writer = Writer(bank, self.database, topology, owner=owner, **settings)
        self.answers: list[Any] = []

    def step(self, *batch: Any, now: datetime = NOW, effect_slots: int = 0) -> PostCommitActions:
        return self.writer.step(batch, now, effect_slots)

    def command(self, command: Any, *, actor: str | None = None) -> PendingCommand:
        return PendingCommand(command, self.answers.append, Context(actor))

    def open(self, *numbers: int, **account: Any) -> None:
        """Open these accounts; what they owe is not yet attended to."""
        commands = [OpenAccount(account_id=account_id(n), **account) for n in numbers]
        self.step(*(self.command(command) for command in commands))

    def balances(self) -> dict[str, int]:
        with self.database.read() as connection:
            found = connection.execute(select(accounts.c.id, accounts.c.balance).order_by("id"))
            return {row.id: row.balance for row in found}

    def rows(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """What a table of the engine holds, in the order of its columns."""
        there = metadata.tables[name]
        wanted = [there.c[column] for column in columns]
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(select(*wanted).order_by(*wanted))]

    def inbox(self) -> set[str]:
        return {event_id for (event_id,) in self.rows("inbox", "event_id")}

    def enqueue(self, owner: str, *positions: int) -> None:
        """Leave events in the outbox, as a process called `owner` would have."""
        with self.database.transaction() as connection:
            connection.execute(
                insert(metadata.tables["outbox"]),
                [
                    {
                        "event_id": fact_id(account_id(position), owner),
                        "reader": "ledger",
                        "owner": owner,
                        "position": position,
                        "subject": Booked.subject,
                        "body": f"{owner} {position}".encode(),
                        "said_at": NOW,
                    }
                    for position in positions
                ],
            )

    def outbox(self) -> list[tuple[str, int, bytes]]:
        """Whose it is, at which position, and what it is."""
        return self.rows("outbox", "owner", "position", "body")


def paid(
    number: int, amount: int = 1, *, attempt: int = 1, sequence: int = 1, epoch: str = ""
) -> IncomingEvent:
    """A payment into an account, as it comes from the stream in that life."""
    event = Paid(account_id=account_id(number), amount=amount)
    envelope = seal(event, NOW, Context("customer", "00-trace"))
    body = msgspec.json.encode(envelope)
    return IncomingEvent(
        delivery(body, attempt=attempt, sequence=sequence, epoch=epoch), envelope, event
    )


def delivery(
    body: bytes = b"", *, attempt: int = 1, sequence: int = 1, epoch: str = ""
) -> Delivery:
    return Delivery(
        Paid.subject,
        body,
        attempt,
        sequence,
        token=None,
        headers={"Some": "header"},
        stream_epoch=epoch,
    )


def seconds(count: float) -> datetime:
    """So many seconds after the beginning."""
    return NOW + timedelta(seconds=count)

"""The bank of `todoku.engine.testing`, and helpers for tests of the writer."""

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import msgspec
from sqlalchemy import insert, select

from todoku.broker import Delivery
from todoku.database import Database
from todoku.engine import PostCommitActions, Service, Topology
from todoku.engine.messages import IncomingEvent, PendingCommand
from todoku.engine.testing import memory_database
from todoku.engine.testing.bank import (
    Account,
    AccountEvent,
    BankUnitOfWork,
    Billed,
    Booked,
    NothingDue,
    NothingPaid,
    OpenAccount,
    Paid,
    SendBill,
    accounts,
    bank,
    book,
    metadata,
)
from todoku.engine.writer import Writer
from todoku.events import Context, Event, fact_id, seal

__all__ = [
    "NOW",
    "OWNER",
    "Account",
    "AccountEvent",
    "BankUnitOfWork",
    "Billed",
    "Booked",
    "Branch",
    "NothingDue",
    "NothingPaid",
    "OpenAccount",
    "Paid",
    "Refunded",
    "SendBill",
    "account_id",
    "accounts",
    "bank",
    "bank_database",
    "delivery",
    "metadata",
    "paid",
    "reader",
    "seconds",
    "store",
    "topology",
]

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
OWNER: Final = "bank-1"

store = bank.store


def account_id(number: int) -> str:
    """Return the id of an account."""
    return f"0198c2f0-7b1a-7c3e-9d55-{number:012x}"


class Refunded(AccountEvent, frozen=True, kw_only=True):
    """Somebody got money back; an earlier version of the bank handled that."""

    subject: ClassVar[str] = "customers.refunded"
    publisher: ClassVar[str] = "customers"


def reader(name: str, *events: type[Event]) -> Service:
    """Return a service that subscribes to these events."""
    return Service(name=name, store=store, event_handlers=dict.fromkeys(events, book))


topology = Topology([bank, reader("ledger", Booked), reader("statistics", Booked)])


def bank_database() -> Database:
    return memory_database(bank)


class Branch:
    """A writer of the bank and its database, with helpers for tests."""

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
        """Open these accounts; their fees are not yet taken."""
        commands = [OpenAccount(account_id=account_id(n), **account) for n in numbers]
        self.step(*(self.command(command) for command in commands))

    def balances(self) -> dict[str, int]:
        with self.database.read() as connection:
            found = connection.execute(select(accounts.c.id, accounts.c.balance).order_by("id"))
            return {row.id: row.balance for row in found}

    def rows(self, name: str, *columns: str) -> list[tuple[Any, ...]]:
        """Return the rows of a table of the engine, in the order of its columns."""
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
        """Return owner, position and body of each row."""
        return self.rows("outbox", "owner", "position", "body")


def paid(
    number: int, amount: int = 1, *, attempt: int = 1, sequence: int = 1, epoch: str = ""
) -> IncomingEvent:
    """Return a payment into an account, as delivered by the stream of this epoch."""
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
    """Return the time this many seconds after `NOW`."""
    return NOW + timedelta(seconds=count)

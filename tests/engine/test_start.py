"""Where a service begins that is added to a running system: with the history of the stream, or now."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

import pytest

from todoku.broker.memory import MemoryBroker
from todoku.broker.port import Outgoing
from todoku.database import Database
from todoku.engine import Service, Topology
from todoku.engine.testing import make_process, memory_database, run, running, until
from todoku.engine.testing.bank import OpenAccount, Paid, SendBill, bank
from todoku.events import encode, seal

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
ACCOUNT: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
OTHER: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5f"


async def no_bill(bill: SendBill) -> None:
    """Send nothing."""


def service(starts_from: Literal["beginning", "now"]) -> Service[Any]:
    return replace(bank, effects={SendBill: no_bill}, starts_from=starts_from)


async def pay(broker: MemoryBroker, account_id: str, amount: int) -> None:
    session = broker.session("customers")
    await session.start()
    paid = Paid(account_id=account_id, amount=amount)
    await session.publish([Outgoing(Paid.subject, encode(seal(paid, NOW)))])
    await session.stop()


def balance(database: Database, account_id: str) -> int | None:
    table = bank.store.metadata.tables["accounts"]
    with database.read() as connection:
        rows = connection.execute(table.select().where(table.c.id == account_id)).all()
    return rows[0].balance if rows else None


def process(of: Service[Any], broker: MemoryBroker, database: Database, owner: str) -> Any:
    return make_process(of, broker, Topology([of]), database, owner=owner)


@pytest.mark.parametrize(("starts_from", "booked"), [("beginning", 105), ("now", 100)])
def test_added_service_consumes_the_past_only_if_it_starts_from_the_beginning(
    starts_from: Literal["beginning", "now"], booked: int
) -> None:
    async def scenario() -> None:
        broker, added = MemoryBroker(), service(starts_from)
        await pay(broker, ACCOUNT, 5)
        database = memory_database(added)
        async with running(process(added, broker, database, "bank-1")) as first:
            await first.execute(OpenAccount(account_id=ACCOUNT, balance=100))
            await first.execute(OpenAccount(account_id=OTHER, balance=0))
            await until(lambda: first.consumer.caught_up)
            await pay(broker, OTHER, 7)
            await until(lambda: balance(database, OTHER) == 7)
            assert balance(database, ACCOUNT) == booked

    run(scenario())


def test_service_that_started_from_now_misses_nothing_while_it_is_down() -> None:
    async def scenario() -> None:
        broker, added = MemoryBroker(), service("now")
        await pay(broker, ACCOUNT, 5)
        database = memory_database(added)
        async with running(process(added, broker, database, "bank-1")) as first:
            await first.execute(OpenAccount(account_id=ACCOUNT, balance=100))
            await until(lambda: first.consumer.caught_up)
        await pay(broker, OTHER, 7)
        async with running(process(added, broker, database, "bank-2")) as second:
            await second.execute(OpenAccount(account_id=OTHER, balance=0))
            await until(lambda: balance(database, OTHER) == 7)
            assert balance(database, ACCOUNT) == 100

    run(scenario())


def test_restored_database_of_it_recovers_from_its_own_place_and_not_from_the_past() -> None:
    async def scenario() -> None:
        broker, added = MemoryBroker(), service("now")
        await pay(broker, ACCOUNT, 5)
        database = memory_database(added)
        async with running(process(added, broker, database, "bank-1")) as first:
            await first.execute(OpenAccount(account_id=ACCOUNT, balance=100))
            await first.execute(OpenAccount(account_id=OTHER, balance=0))
            await until(lambda: first.consumer.caught_up)
            backup = database.serialize()
            await pay(broker, OTHER, 7)
            await until(lambda: balance(database, OTHER) == 7)
        restored = Database.in_memory(backup)
        async with running(process(added, broker, restored, "bank-2")):
            await until(lambda: balance(restored, OTHER) == 7)
            assert balance(restored, ACCOUNT) == 100

    run(scenario())


def test_new_stream_is_read_from_its_beginning() -> None:
    async def scenario() -> None:
        broker, added = MemoryBroker(), service("now")
        database = memory_database(added)
        async with running(process(added, broker, database, "bank-1")) as first:
            await first.execute(OpenAccount(account_id=ACCOUNT, balance=100))
            await until(lambda: first.consumer.caught_up)
        broker.wipe()
        await pay(broker, ACCOUNT, 5)
        async with running(process(added, broker, database, "bank-2")):
            await until(lambda: balance(database, ACCOUNT) == 105)

    run(scenario())

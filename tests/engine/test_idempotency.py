"""A command that is repeated with its idempotency key is executed once, and answered the same."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest
from sqlalchemy import delete, select, update

from engine.bank import (
    NOW,
    Account,
    Branch,
    NothingPaid,
    OpenAccount,
    account_id,
    accounts,
    bank,
)
from engine.statements import listening
from todoku.broker.memory import MemoryBroker
from todoku.database import ConstraintViolated, Database
from todoku.engine import (
    AnswerFormat,
    AnswerUnavailable,
    EngineConfig,
    IdempotencyKey,
    IdempotencyKeyReused,
    Process,
    RequestInProgress,
    Service,
    Topology,
    key_id,
)
from todoku.engine.idempotency import KeptAnswer
from todoku.engine.messages import PendingCommand
from todoku.engine.testing import RunningProcess, make_process, memory_database, run, running, until

KEY: Final = IdempotencyKey(key_id("alice", "1"), "open", frozenset({NothingPaid}))
OTHER_REQUEST: Final = IdempotencyKey(KEY.id, "close")


def opening(number: int, balance: int = 10) -> OpenAccount:
    return OpenAccount(account_id=account_id(number), balance=balance)


def process(
    database: Database, service: Service[Any] = bank, owner: str = "bank-1", **options: Any
) -> Process:
    return make_process(
        service, MemoryBroker(), Topology([service]), database, owner=owner, **options
    )


def opened(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(select(accounts.c.id).order_by(accounts.c.id)))


def test_repeated_command_is_answered_as_the_first_and_changes_nothing() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        async with running(process(database)) as bank_process:
            first = await bank_process.execute(opening(1), key=KEY)
            await bank_process.execute(opening(1, balance=99))
            assert await bank_process.execute(opening(2), key=KEY) == first
        assert opened(database) == [account_id(1)]

    run(scenario())


def test_key_of_another_caller_is_another_key() -> None:
    assert key_id("alice", "1") != key_id("bob", "1")
    assert key_id("ali", "ce1") != key_id("alice", "1")
    assert key_id("alice", "1", 2) != key_id("alice", "1")


def test_refusal_is_kept_and_other_errors_are_not() -> None:
    unkept = IdempotencyKey(key_id("alice", "2"), "open")

    async def scenario() -> None:
        async with running(process(memory_database(bank))) as bank_process:
            await bank_process.execute(opening(1))
            for key in (KEY, unkept):
                with pytest.raises(NothingPaid):
                    await bank_process.execute(opening(1, balance=0), key=key)
            with pytest.raises(NothingPaid):
                await bank_process.execute(opening(2), key=KEY)
            assert (await bank_process.execute(opening(2), key=unkept)).balance == 10

    run(scenario())


def test_key_of_another_request_is_refused() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        async with running(process(database)) as bank_process:
            await bank_process.execute(opening(1), key=KEY)
            with pytest.raises(IdempotencyKeyReused):
                await bank_process.execute(opening(2), key=OTHER_REQUEST)
        assert opened(database) == [account_id(1)]

    run(scenario())


def test_second_request_is_refused_while_the_first_is_in_progress() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        async with running(process(database)) as bank_process:
            first = asyncio.create_task(bank_process.execute(opening(1), key=KEY))
            await asyncio.sleep(0)
            with pytest.raises(RequestInProgress):
                await bank_process.execute(opening(2), key=KEY)
            answer = await first
            assert await bank_process.execute(opening(3), key=KEY) == answer
        assert opened(database) == [account_id(1)]

    run(scenario())


def test_request_stays_in_progress_after_its_client_has_gone() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        async with running(process(database)) as bank_process:
            first = asyncio.create_task(bank_process.execute(opening(1), key=KEY))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(RequestInProgress):
                await bank_process.execute(opening(2), key=KEY)
            await until(lambda: opened(database) == [account_id(1)])
            assert (await bank_process.execute(opening(3), key=KEY)).id == account_id(1)

    run(scenario())


def test_answer_that_was_lost_in_a_crash_is_given_by_the_next_process() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        crashed: list[str] = []

        def crash(point: str) -> None:
            if point == "after-commit" and opened(database):
                crashed.append(point)
                raise SystemError(point)

        first = RunningProcess(process(database, failpoint=crash))
        await first.started()
        with pytest.raises(Exception, match=r"after-commit|ended"):
            await first.process.execute(opening(1), key=KEY)
        with pytest.raises(SystemError):
            await first.ended()
        assert crashed
        async with running(process(database, owner="bank-2")) as second:
            answer = await second.execute(opening(2), key=KEY)
        assert answer == Account(account_id(1), 10)
        assert opened(database) == [account_id(1)]

    run(scenario())


def test_command_that_the_tables_reject_leaves_its_key_unused() -> None:
    async def scenario() -> None:
        async with running(process(memory_database(bank))) as bank_process:
            with pytest.raises(ConstraintViolated):
                await bank_process.execute(opening(1, balance=-1), key=KEY)
            assert (await bank_process.execute(opening(1), key=KEY)).balance == 10

    run(scenario())


def test_same_key_twice_in_one_batch_is_executed_once() -> None:
    branch = Branch()
    answers: list[Any] = []
    branch_actions = branch.step(
        *(PendingCommand(opening(n), answers.append, key=KEY) for n in (1, 2))
    )
    results = [result for _, result in branch_actions.answers]
    assert branch.balances() == {account_id(1): 10}
    assert isinstance(results[0], RequestInProgress)  # It is answered before the first is decided.
    assert results[1] == Account(account_id(1), 10)


def test_key_is_saved_with_its_batch_or_not_at_all() -> None:
    def die(point: str) -> None:
        if point == "before-commit":
            raise SystemExit

    branch = Branch(failpoint=die)
    with pytest.raises(SystemExit):
        branch.step(PendingCommand(opening(1), lambda _: None, key=KEY))
    assert branch.balances() == {}
    assert branch.rows("idempotency_keys", "id") == []


def test_batch_without_keys_costs_no_statement_about_them() -> None:
    branch = Branch()
    with listening() as statements:
        branch.step(branch.command(opening(1)))
    assert not [each for each in statements if "idempotency_keys" in each]


def test_key_is_pruned_when_its_time_is_over() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        config = EngineConfig(key_retention_seconds=60)
        async with running(process(database, config=config)) as bank_process:
            await bank_process.execute(opening(1), key=KEY)
            await asyncio.sleep(50)
            assert (await bank_process.execute(opening(2), key=KEY)).id == account_id(1)
            await asyncio.sleep(20)
            assert (await bank_process.execute(opening(2), key=KEY)).id == account_id(2)

    run(scenario())


def test_only_old_keys_are_pruned_a_bounded_number_at_a_time() -> None:
    branch = Branch()
    for n in range(4):
        key = msgspec.structs.replace(KEY, id=key_id("alice", str(n)))
        pending = PendingCommand(opening(n), lambda _: None, key=key)
        branch.step(pending, now=NOW + timedelta(seconds=n))
    pruned = branch.writer.maintenance.prune_keys(NOW + timedelta(seconds=3), 2)
    assert pruned == 2
    assert branch.writer.maintenance.prune_keys(NOW + timedelta(seconds=3), 2) == 1
    assert branch.writer.maintenance.prune_keys(NOW + timedelta(seconds=3), 2) == 0
    assert branch.rows("idempotency_keys", "id") == [(key_id("alice", "3"),)]


def rebuilt(connection: Any, number: int) -> Account | None:
    found = connection.execute(select(accounts).where(accounts.c.id == account_id(number))).first()
    return None if found is None else Account(found.id, 10)


SHORT: Final = replace(
    bank,
    answers={Account: AnswerFormat(keep=lambda account: int(account.id[-4:]), rebuild=rebuilt)},
)


def test_service_keeps_what_it_declares_and_rebuilds_the_answer_from_its_rows() -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        async with running(process(database, SHORT)) as bank_process:
            first = await bank_process.execute(opening(1), key=KEY)
            assert kept(database).content == "1"
            assert await bank_process.execute(opening(2), key=KEY) == first
            with database.transaction() as connection:
                connection.execute(delete(accounts))
            with pytest.raises(AnswerUnavailable):
                await bank_process.execute(opening(2), key=KEY)

    run(scenario())


@pytest.mark.parametrize(
    "changed", [{"kind": "engine.bank:Moved"}, {"content": "[]"}, {"kind": "x:X", "refused": 1}]
)
def test_answer_that_another_version_kept_is_unavailable(changed: dict[str, Any]) -> None:
    async def scenario() -> None:
        database = memory_database(bank)
        async with running(process(database)) as bank_process:
            await bank_process.execute(opening(1), key=KEY)
            table = bank.store.tables.idempotency_keys.table
            with database.transaction() as connection:
                connection.execute(update(table).values(changed))
            with pytest.raises(AnswerUnavailable):
                await bank_process.execute(opening(2), key=KEY)
        assert opened(database) == [account_id(1)]

    run(scenario())


def test_result_of_nothing_is_kept() -> None:
    handlers = {OpenAccount: lambda state, _, now: (state, [])}
    closing = replace(bank, command_handlers=handlers, agendas=())

    async def scenario() -> None:
        async with running(process(memory_database(bank), closing)) as bank_process:
            for _ in range(2):
                assert await bank_process.execute(opening(1), key=KEY) is None

    run(scenario())


def kept(database: Database) -> KeptAnswer:
    with database.read() as connection:
        return bank.store.tables.idempotency_keys.find(connection, [KEY.id])[KEY.id]

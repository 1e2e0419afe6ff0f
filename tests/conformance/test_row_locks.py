"""Test that two transactions meet in the simulation as they do at a PostgreSQL server.

In each scenario two transactions take turns: one runs until it passes its turn, ends, or waits for a
lock of the other one.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from example_service import ACCOUNTS
from sqlalchemy import Connection, Engine, Select, delete, insert, select, text, update

from todoku.database import (
    ConstraintViolated,
    Database,
    DatabaseError,
    DatabaseUnavailable,
    insert_ignoring_duplicates,
    migrate,
    sqlite,
)
from todoku.engine.testing import run
from todoku.lab.simulation.row_locks import Row
from todoku.lab.simulation.shared_driver import shared_engine
from todoku.lab.simulation.shared_storage import SharedStorage, add_row_triggers
from todoku.lab.simulation.stepped import SteppedThread, wait

SERVICE = "example_service"
POLL_SECONDS = 0.01

Pass = Callable[[], None]
Body = Callable[[Connection, Pass], Any]


class Meeting:
    """Two transactions on a database with the accounts a (10) and b (20)."""

    def run(self, first: Body, second: Body) -> list[Any]:
        """Run two transactions in turn; return what each has returned, or the error that it raised."""
        raise NotImplementedError

    def balances(self) -> dict[str, int]:
        """Return what is committed."""
        raise NotImplementedError


class SimulatedMeeting(Meeting):
    def __init__(self, pages: bytes) -> None:
        self.unlocked: list[Row] = []
        self.storage = SharedStorage(pages, self.unlocked.append)

    def run(self, first: Body, second: Body) -> list[Any]:
        engine = shared_engine(self.storage, lambda: None)

        async def play(body: Body, starts_after: float) -> Any:
            await asyncio.sleep(starts_after)
            thread = SteppedThread()
            try:
                return await thread.run(_transact, engine, body, lambda: wait(asyncio.sleep(1)))
            finally:
                thread.close()

        async def both() -> list[Any]:
            return await asyncio.gather(play(first, 0), play(second, 0.5), return_exceptions=True)

        return run(both())

    def balances(self) -> dict[str, int]:
        return dict(self.storage.look("SELECT name, balance FROM accounts"))


class PostgresMeeting(Meeting):
    def __init__(self, server: Engine, databases: list[Database]) -> None:
        self._server = server
        self._databases = databases
        self._condition = threading.Condition()
        self._turn = 0
        self._ended = [False, False]
        self._pids = [0, 0]

    def run(self, first: Body, second: Body) -> list[Any]:
        results: list[Any] = [None, None]
        bodies = (first, second)

        def play(me: int) -> None:
            try:
                with self._databases[me].transaction() as connection:
                    self._pids[me] = connection.scalar(text("SELECT pg_backend_pid()"))
                    self._await_turn(me)
                    results[me] = bodies[me](connection, lambda: self._pass_turn(me))
            except DatabaseError as error:
                results[me] = error
            finally:
                with self._condition:
                    self._ended[me] = True
                    self._condition.notify_all()

        threads = [threading.Thread(target=play, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        return results

    def balances(self) -> dict[str, int]:
        with self._databases[0].read() as connection:
            return dict(connection.execute(select(ACCOUNTS.c.name, ACCOUNTS.c.balance)).all())  # type: ignore[arg-type]

    def _pass_turn(self, me: int) -> None:
        with self._condition:
            self._turn = 1 - me
            self._condition.notify_all()
        self._await_turn(me)

    def _await_turn(self, me: int) -> None:
        with self._condition:
            while not (self._turn == me or self._ended[1 - me] or self._waits_for_lock(1 - me)):
                self._condition.wait(POLL_SECONDS)

    def _waits_for_lock(self, who: int) -> bool:
        query = text("SELECT wait_event_type FROM pg_stat_activity WHERE pid = :pid")
        with self._server.connect() as connection:
            return bool(connection.scalar(query, {"pid": self._pids[who]}) == "Lock")


def _transact(engine: Engine, body: Body, pass_turn: Pass) -> Any:
    with engine.connect() as connection, connection.begin():
        return body(connection, pass_turn)


@pytest.fixture(scope="module")
def pages() -> bytes:
    """Return a database with two accounts, for the simulation."""
    with Database.in_memory() as database:
        migrate(database, SERVICE)
        empty = database.serialize()
    with closing(sqlite.connect_copy(empty)) as connection:
        connection.execute("INSERT INTO accounts (name, balance) VALUES ('a', 10), ('b', 20)")
        add_row_triggers(connection)
        return connection.serialize()


@pytest.fixture(params=["simulation", "postgresql"])
def meeting(request: pytest.FixtureRequest) -> Iterator[Meeting]:
    if request.param == "simulation":
        yield SimulatedMeeting(request.getfixturevalue("pages"))
        return
    url = request.getfixturevalue("postgres_url")
    with Database.open(url) as one, Database.open(url) as other:
        migrate(one, SERVICE)
        with one.transaction() as connection:
            connection.execute(insert(ACCOUNTS), [_account("a", 10), _account("b", 20)])
        yield PostgresMeeting(request.getfixturevalue("postgres_server"), [one, other])


def _account(name: str, balance: int) -> dict[str, Any]:
    return {"name": name, "balance": balance}


def balance_of(name: str) -> Select[tuple[int]]:
    return select(ACCOUNTS.c.balance).where(ACCOUNTS.c.name == name)


def set_balance(connection: Connection, name: str, balance: Any) -> None:
    connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.name == name).values(balance=balance))


def test_update_is_lost_without_lock(meeting: Meeting) -> None:
    def add(connection: Connection, pass_turn: Pass) -> None:
        balance = connection.scalar(balance_of("a"))
        pass_turn()
        set_balance(connection, "a", (balance or 0) + 1)

    meeting.run(add, add)

    assert meeting.balances()["a"] == 11


def test_no_update_is_lost_with_lock(meeting: Meeting) -> None:
    def add(connection: Connection, pass_turn: Pass) -> None:
        balance = connection.scalar(balance_of("a").with_for_update())
        pass_turn()
        set_balance(connection, "a", (balance or 0) + 1)

    meeting.run(add, add)

    assert meeting.balances()["a"] == 12


def test_statement_sees_what_was_committed_before_it(meeting: Meeting) -> None:
    def change(connection: Connection, pass_turn: Pass) -> Any:
        set_balance(connection, "a", 99)
        pass_turn()
        return connection.scalar(balance_of("a"))

    def look(connection: Connection, pass_turn: Pass) -> list[Any]:
        before = connection.scalar(balance_of("a"))
        pass_turn()
        return [before, connection.scalar(balance_of("a"))]

    assert meeting.run(change, look) == [99, [10, 99]]


def test_locked_rows_are_skipped(meeting: Meeting) -> None:
    names = select(ACCOUNTS.c.name).order_by(ACCOUNTS.c.name).limit(1)

    def take(connection: Connection, pass_turn: Pass) -> Any:
        taken = connection.scalars(names.with_for_update(skip_locked=True)).all()
        pass_turn()
        return taken

    assert meeting.run(take, take) == [["a"], ["b"]]


def test_rows_are_read_again_after_a_wait(meeting: Meeting) -> None:
    """One that does not fit any more is left out; one that was added meanwhile is not found."""

    def change(connection: Connection, pass_turn: Pass) -> None:
        set_balance(connection, "a", 99)
        set_balance(connection, "b", 21)
        connection.execute(insert(ACCOUNTS), [_account("c", 1)])
        pass_turn()

    def find(connection: Connection, _: Pass) -> list[Any]:
        columns = ACCOUNTS.c
        found = select(columns.name, columns.balance).where(columns.balance < 50)
        locked = found.order_by(columns.name).with_for_update()
        return [tuple(row) for row in connection.execute(locked)]

    assert meeting.run(change, find)[1] == [("b", 21)]


def test_second_row_with_the_same_key_is_refused(meeting: Meeting) -> None:
    def add(balance: int) -> Body:
        def body(connection: Connection, pass_turn: Pass) -> None:
            connection.execute(insert(ACCOUNTS), [_account("c", balance)])
            pass_turn()

        return body

    results = meeting.run(add(1), add(2))

    assert results[0] is None
    assert isinstance(results[1], ConstraintViolated)
    assert meeting.balances()["c"] == 1


def test_second_row_with_the_same_key_is_ignored(meeting: Meeting) -> None:
    def add(balance: int) -> Body:
        def body(connection: Connection, pass_turn: Pass) -> None:
            statement = insert_ignoring_duplicates(ACCOUNTS)
            connection.execute(statement, [_account("c", balance)])
            pass_turn()

        return body

    assert meeting.run(add(1), add(2)) == [None, None]
    assert meeting.balances()["c"] == 1


def test_change_waits_and_follows_the_other_one(meeting: Meeting) -> None:
    def add(connection: Connection, pass_turn: Pass) -> None:
        set_balance(connection, "a", ACCOUNTS.c.balance + 1)
        pass_turn()

    meeting.run(add, add)

    assert meeting.balances()["a"] == 12


def test_row_that_fits_no_more_after_a_wait_is_not_deleted(meeting: Meeting) -> None:
    def renew(connection: Connection, pass_turn: Pass) -> None:
        set_balance(connection, "a", 99)
        pass_turn()

    def prune(connection: Connection, _: Pass) -> None:
        connection.execute(delete(ACCOUNTS).where(ACCOUNTS.c.balance < 50))

    meeting.run(renew, prune)

    assert meeting.balances() == {"a": 99}


def test_deadlock_ends_one_of_the_transactions(meeting: Meeting) -> None:
    def lock(*names: str) -> Body:
        def body(connection: Connection, pass_turn: Pass) -> None:
            for name in names:
                balance = connection.scalar(balance_of(name).with_for_update())
                set_balance(connection, name, (balance or 0) + 1)
                pass_turn()

        return body

    results = meeting.run(lock("a", "b"), lock("b", "a"))

    assert sum(isinstance(result, DatabaseUnavailable) for result in results) == 1
    assert meeting.balances() == {"a": 11, "b": 21}


def test_change_of_a_row_that_was_not_locked_is_reported(pages: bytes) -> None:
    simulated = SimulatedMeeting(pages)

    def change(lock: bool) -> Body:
        def body(connection: Connection, _: Pass) -> None:
            name = "a" if lock else "b"
            found = balance_of(name).with_for_update() if lock else balance_of(name)
            connection.scalar(found)
            set_balance(connection, name, 5)

        return body

    simulated.run(change(lock=True), change(lock=False))

    assert simulated.unlocked == [Row("accounts", '["b"]')]

"""What the writer remembers of its last transactions is what the tables hold."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.bank import Branch, account_id, metadata, paid
from engine.statements import listening
from todoku.database import Database
from todoku.engine.memory import Memory


def remembering(kept_max: int, version: int | None = 1) -> Memory:
    memory = Memory(kept_max)
    memory.hold(version)
    return memory


class TestMemory:
    def test_it_recalls_what_it_kept_and_knows_nothing_of_the_rest(self) -> None:
        memory = remembering(3)
        memory.keep("orders", {"a": 1, "b": 2})
        assert memory.recall("orders", ["a", "c"]) == {"a": 1}
        assert memory.recall("products", ["a"]) == {}

    def test_what_was_not_touched_for_longest_is_forgotten_first(self) -> None:
        memory = remembering(2)
        memory.keep("orders", {"a": 1, "b": 2})
        memory.keep("orders", {"a": 3})
        memory.keep("orders", {"c": 4})
        assert memory.recall("orders", ["a", "b", "c"]) == {"a": 3, "c": 4}

    def test_it_goes_on_while_nobody_else_has_written(self) -> None:
        memory = remembering(2)
        memory.keep("orders", {"a": 1})
        memory.hold(1)
        assert memory.recall("orders", ["a"]) == {"a": 1}
        memory.hold(2)
        assert memory.recall("orders", ["a"]) == {}

    def test_where_nobody_can_tell_who_has_written_nothing_is_remembered(self) -> None:
        memory = remembering(2, None)
        memory.keep("orders", {"a": 1})
        memory.hold(None)
        assert memory.recall("orders", ["a"]) == {}

    def test_after_forgetting_nothing_is_kept_before_the_next_transaction(self) -> None:
        memory = remembering(2)
        memory.keep("orders", {"a": 1})
        memory.forget()
        memory.keep("orders", {"b": 1})
        memory.hold(1)
        assert memory.recall("orders", ["a", "b"]) == {}


def loads(step: Callable[[], Any]) -> int:
    """How often the accounts are read from their table."""
    with listening() as statements:
        step()
    return sum("FROM accounts" in statement and "min(" not in statement for statement in statements)


class TestTheWriter:
    def test_what_was_just_committed_is_not_loaded_again(self) -> None:
        branch = Branch()
        assert loads(lambda: branch.open(1, 2)) == 1
        assert loads(lambda: branch.step(paid(1))) == 0
        assert loads(lambda: branch.step(paid(2), paid(3))) == 1
        assert list(branch.balances().values()) == [1, 1, 1]

    def test_what_a_batch_that_was_refused_left_is_not_remembered(self) -> None:
        branch = Branch()
        branch.open(1, 2)
        branch.step(paid(1, -1), paid(2, 5, sequence=2))
        branch.step(paid(1, 7, sequence=3))
        assert list(branch.balances().values()) == [7, 5]

    def test_what_somebody_else_has_written_meanwhile_is_seen(self, tmp_path: Path) -> None:
        with Database.open(tmp_path / "bank.db") as database:
            with database.transaction() as connection:
                metadata.create_all(connection)
            branch = Branch(database)
            branch.open(1)
            with sqlite3.connect(tmp_path / "bank.db") as outside:
                outside.execute("UPDATE accounts SET balance = 100")
            outside.close()
            branch.step(paid(1))
            assert branch.balances() == {account_id(1): 101}

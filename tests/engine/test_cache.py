"""What the writer remembers of its last transactions is what the tables hold."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.bank import Branch, account_id, metadata, paid
from engine.statements import listening
from todoku.database import Database
from todoku.engine.cache import StateCache


def remembering(kept_max: int, version: int | None = 1) -> StateCache:
    cache = StateCache(kept_max)
    cache.validate(version)
    return cache


class TestMemory:
    def test_it_recalls_what_it_kept_and_knows_nothing_of_the_rest(self) -> None:
        cache = remembering(3)
        cache.put("orders", {"a": 1, "b": 2})
        assert cache.get("orders", ["a", "c"]) == {"a": 1}
        assert cache.get("products", ["a"]) == {}

    def test_what_was_not_touched_for_longest_is_forgotten_first(self) -> None:
        cache = remembering(2)
        cache.put("orders", {"a": 1, "b": 2})
        cache.put("orders", {"a": 3})
        cache.put("orders", {"c": 4})
        assert cache.get("orders", ["a", "b", "c"]) == {"a": 3, "c": 4}

    def test_it_goes_on_while_nobody_else_has_written(self) -> None:
        cache = remembering(2)
        cache.put("orders", {"a": 1})
        cache.validate(1)
        assert cache.get("orders", ["a"]) == {"a": 1}
        cache.validate(2)
        assert cache.get("orders", ["a"]) == {}

    def test_where_nobody_can_tell_who_has_written_nothing_is_remembered(self) -> None:
        cache = remembering(2, None)
        cache.put("orders", {"a": 1})
        cache.validate(None)
        assert cache.get("orders", ["a"]) == {}

    def test_after_forgetting_nothing_is_kept_before_the_next_transaction(self) -> None:
        cache = remembering(2)
        cache.put("orders", {"a": 1})
        cache.clear()
        cache.put("orders", {"b": 1})
        cache.validate(1)
        assert cache.get("orders", ["a", "b"]) == {}


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

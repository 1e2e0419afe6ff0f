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


class TestStateCache:
    def test_get_returns_only_states_that_were_put(self) -> None:
        cache = remembering(3)
        cache.put("orders", {"a": 1, "b": 2})
        assert cache.get("orders", ["a", "c"]) == {"a": 1}
        assert cache.get("products", ["a"]) == {}

    def test_hits_and_misses_are_counted(self) -> None:
        cache = remembering(3)
        cache.put("orders", {"a": 1, "b": 2})
        cache.get("orders", ["a", "b", "c"])
        cache.get("products", ["a"])
        assert (cache.hits, cache.misses, cache.size) == (2, 2, 2)

    def test_least_recently_used_state_is_evicted_first(self) -> None:
        cache = remembering(2)
        cache.put("orders", {"a": 1, "b": 2})
        cache.put("orders", {"a": 3})
        cache.put("orders", {"c": 4})
        assert cache.get("orders", ["a", "b", "c"]) == {"a": 3, "c": 4}

    def test_unchanged_version_keeps_the_cache(self) -> None:
        cache = remembering(2)
        cache.put("orders", {"a": 1})
        cache.validate(1)
        assert cache.get("orders", ["a"]) == {"a": 1}
        cache.validate(2)
        assert cache.get("orders", ["a"]) == {}

    def test_unknown_version_caches_nothing(self) -> None:
        cache = remembering(2, None)
        cache.put("orders", {"a": 1})
        cache.validate(None)
        assert cache.get("orders", ["a"]) == {}

    def test_cleared_cache_takes_nothing_before_the_next_validation(self) -> None:
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


class TestWriter:
    def test_committed_state_is_not_loaded_again(self) -> None:
        branch = Branch()
        assert loads(lambda: branch.open(1, 2)) == 1
        assert loads(lambda: branch.step(paid(1))) == 0
        assert loads(lambda: branch.step(paid(2), paid(3))) == 1
        assert list(branch.balances().values()) == [1, 1, 1]

    def test_state_of_a_rejected_batch_is_not_cached(self) -> None:
        branch = Branch()
        branch.open(1, 2)
        branch.step(paid(1, -1), paid(2, 5, sequence=2))
        branch.step(paid(1, 7, sequence=3))
        assert list(branch.balances().values()) == [7, 5]

    def test_write_of_another_process_invalidates_the_cache(self, tmp_path: Path) -> None:
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

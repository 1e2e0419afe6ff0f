"""Tests how the simulation restores a database."""

from todoku.database import Database
from todoku.lab.simulation.database import ExclusiveDatabase
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.restores import replace
from todoku.lab.simulation.trace import Trace


def test_database_that_has_selected_from_a_list_is_replaced() -> None:
    """Deserializing its connection would end the process: see `sqlite.connect_copy`."""
    database = ExclusiveDatabase(
        "orders", "todoku.orders", Faults(1, None, Trace(lambda: 0.0), lambda: 0.0)
    )
    with database:
        listed = "SELECT value FROM json_each('[1, 2]')"
        for _ in range(50):
            assert database.look(listed) == [(1,), (2,)]
            replace(database, image_with_table("restored"))
            assert database.look("SELECT count(*) FROM restored") == [(0,)]


def image_with_table(name: str) -> bytes:
    with Database.in_memory() as database:
        with database.transaction() as connection:
            connection.exec_driver_sql(f"CREATE TABLE {name} (a)")
        return database.serialize()

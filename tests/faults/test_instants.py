"""Three PostgreSQL databases that are restored to three different instants make a whole system again."""

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import psycopg
import pytest

from faults.conftest import Prove
from faults.postgres import BIN, PostgreSQL, needs_postgresql, postgresql
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import Stack
from todoku.system import system

pytestmark = [pytest.mark.faults, needs_postgresql]


def client(program: str, server: PostgreSQL, database: str, *arguments: str) -> None:
    """Run a program of PostgreSQL's clients on a database."""
    assert BIN is not None
    command: Sequence[str] = [str(BIN / program), "-d", server.url(database), *arguments]
    subprocess.run(command, check=True, env={**os.environ, "PGOPTIONS": ""})


def dump(server: PostgreSQL, database: str, file: Path) -> None:
    """Save a database as of now."""
    client("pg_dump", server, database, "-Fc", "-f", str(file))


def restore(server: PostgreSQL, database: str, file: Path) -> None:
    """Replace a database by what was saved."""
    server.execute(f"DROP DATABASE {database} WITH (FORCE)")
    server.execute(f"CREATE DATABASE {database}")
    client("pg_restore", server, database, str(file))


def count(server: PostgreSQL, database: str, table: str) -> int:
    with psycopg.connect(server.url(database)) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(
    "order", [("orders", "inventory", "shipping"), ("shipping", "inventory", "orders")]
)
def test_databases_restored_to_three_different_instants(
    order: Sequence[str], tmp_path: Path, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """What each of them lacks compared with the others and the stream is recovered from the stream."""
    with postgresql() as server:
        server.create_databases(system.names)
        stack = make_stack(**{f"{name}_database_url": server.url(name) for name in system.names})
        stack.start()
        prepare_products(stack)
        # They lack keys as well: a request that is sent again would be executed again.
        with OrderLoad(stack, repeats=False) as load:
            for name in order:
                load.until_accepted(150)
                dump(server, name, tmp_path / name)
            load.until_accepted(150)
        stack.stop()
        before = count(server, "orders", "orders")
        for name in order:
            restore(server, name, tmp_path / name)
        lost = before - count(server, "orders", "orders")
        assert lost >= 100
        stack.start()
        prove(stack, load, injected=3, note=f"orders had lost {lost} orders, which came back")
        stack.kill_up()

"""A replica that freezes in the middle of a batch on PostgreSQL stops the others for seconds only."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from faults.conftest import Prove
from faults.postgres import needs_pgbouncer, needs_postgresql, pgbouncer, postgresql
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import TODOKU, Stack, free_ports
from todoku.settings import to_environment
from todoku.system import system

pytestmark = [pytest.mark.faults, needs_postgresql]

STALL_SECONDS_MAX = 10.0
WATCHED_SECONDS = 20.0
FREEZES_AT_THE = 40


@contextmanager
def replica(stack: Stack, service: str, freeze_at: str) -> Iterator[int]:
    """Run one more process of a service, which stops itself at a failpoint; return its id."""
    environment = to_environment(stack.settings) | {
        f"TODOKU_{service.upper()}_PORT": str(free_ports(1)[0]),
        "TODOKU_FREEZE_AT": freeze_at,
    }
    with stack.log.open("a") as log:
        process = subprocess.Popen(
            [*TODOKU, "run", service],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert process.wait(60) == 0


def is_frozen(pid: int) -> bool:
    """Return whether a process was stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def until_frozen(pid: int) -> None:
    deadline = time.monotonic() + 60
    while not is_frozen(pid):
        assert time.monotonic() < deadline, "it has not reached the failpoint"
        time.sleep(0.02)


def longest_stall(url: str, query: bytes) -> float:
    """Return for how many seconds at most the result of a query did not change."""
    with psycopg.connect(url, autocommit=True) as connection:
        begun = changed_at = time.monotonic()
        longest, last = 0.0, connection.execute(query).fetchone()
        while time.monotonic() < begun + WATCHED_SECONDS:
            time.sleep(0.05)
            found = connection.execute(query).fetchone()
            longest = max(longest, time.monotonic() - changed_at)
            if found != last:
                last, changed_at = found, time.monotonic()
    return longest


@pytest.mark.parametrize(
    ("service", "query"),
    [
        ("orders", b"SELECT count(*) FROM orders"),
        ("inventory", b"SELECT count(*) FROM reservations"),
        ("shipping", b"SELECT count(*) FROM shipments WHERE status = 'COMPLETED'"),
    ],
)
def test_replica_that_freezes_in_a_batch(
    service: str, query: bytes, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """It holds locks on most products or orders: the others go on within seconds. Continued, it commits
    nothing that it had decided before."""
    with postgresql() as server:
        server.create_databases(system.names)
        stack = make_stack(**{f"{name}_database_url": server.url(name) for name in system.names})
        stack.start()
        prepare_products(stack)
        with (
            OrderLoad(stack) as load,
            replica(stack, service, f"before-commit:{FREEZES_AT_THE}@{service}") as pid,
        ):
            until_frozen(pid)
            stall = longest_stall(server.url(service), query)
            assert stall < STALL_SECONDS_MAX
            assert is_frozen(pid)
            os.kill(pid, signal.SIGCONT)
            load.until_accepted(100)
            prove_note = f"the others stood still for {stall:.1f} s at most"
        prove(stack, load, injected=1, note=prove_note)
        stack.kill_up()


@needs_pgbouncer
@pytest.mark.parametrize("pool_mode", ["session", "transaction"])
def test_replica_that_freezes_behind_pgbouncer(
    pool_mode: str, make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """The backend that holds its locks is PgBouncer's: it is ended all the same."""
    with postgresql() as server, pgbouncer(server, pool_mode) as port:
        server.create_databases(system.names)
        stack = make_stack(
            **{
                f"{name}_database_url": f"postgresql://postgres@127.0.0.1:{port}/{name}"
                for name in system.names
            }
        )
        stack.start()
        prepare_products(stack)
        freeze_at = f"before-commit:{FREEZES_AT_THE}@inventory"
        with OrderLoad(stack) as load, replica(stack, "inventory", freeze_at) as pid:
            until_frozen(pid)
            query = b"SELECT count(*) FROM reservations"
            stall = longest_stall(server.url("inventory"), query)
            assert stall < STALL_SECONDS_MAX
            assert is_frozen(pid)
            os.kill(pid, signal.SIGCONT)
            load.until_accepted(100)
        prove(stack, load, injected=1, note=f"the others stood still for {stall:.1f} s at most")
        stack.kill_up()

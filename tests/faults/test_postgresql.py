"""PostgreSQL that is killed, cut off, or behind PgBouncer, under load."""

import time
from collections.abc import Callable

import pytest

from faults.conftest import Prove
from faults.postgres import (
    Machine,
    needs_namespaces,
    needs_pgbouncer,
    needs_postgresql,
    pgbouncer,
    postgresql,
    standby_of,
)
from todoku.lab.chaos import OrderLoad, prepare_products
from todoku.lab.stack import Stack
from todoku.system import system

pytestmark = [pytest.mark.faults, needs_postgresql]

KILLS = 4
BEHIND_SECONDS = 2.0
TIMELINE_SAVED_SECONDS = 8.0
"""Longer than the period of the housekeeping, which saves the timeline."""

CUT_OFF_SECONDS = 25.0
NOT_READY_WITHIN_SECONDS = 15.0


def urls(url: Callable[[str], str]) -> dict[str, str]:
    """Return the setting of each service's database."""
    return {f"{name}_database_url": url(name) for name in system.names}


def test_kills_of_a_server_that_is_set_to_asynchronous_commits(
    make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """Accepted orders survive although the database is set to `synchronous_commit = off`."""
    with postgresql() as server:
        server.create_databases(system.names)
        for name in system.names:
            server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
        stack = make_stack(**urls(server.url))
        stack.start()
        prepare_products(stack)
        with OrderLoad(stack) as load:
            for _ in range(KILLS):
                load.until_accepted(200)
                server.stop()
                server.start()
                stack.until_ready()
            load.until_accepted(100)
        prove(stack, load, injected=KILLS)
        stack.kill_up()


def test_standby_that_lacks_the_last_seconds_is_promoted(
    make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """What an asynchronous standby lacks is recovered from the stream, without anybody's help."""
    with postgresql() as primary:
        primary.create_databases(system.names)
        with standby_of(primary) as standby:
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            stack = make_stack(**urls(lambda name: f"postgresql://postgres@{hosts}/{name}"))
            stack.start()
            prepare_products(stack)
            # The standby lacks keys as well: a request that is sent again would be executed again.
            with OrderLoad(stack, repeats=False) as load:
                load.until_accepted(300)
                load.go_on_for(TIMELINE_SAVED_SECONDS)
                standby.stop_following()
                load.go_on_for(BEHIND_SECONDS)
                primary.stop()
                standby.promote()
                stack.until_ready()
                load.until_accepted(200)
            prove(stack, load, injected=1, note=f"{BEHIND_SECONDS:g} s behind")
            stack.kill_up()


@needs_pgbouncer
@pytest.mark.parametrize("pool_mode", ["transaction", "session"])
def test_pgbouncer_in_mode(pool_mode: str, make_stack: Callable[..., Stack], prove: Prove) -> None:
    """Every service works behind PgBouncer, and goes on after kills of the server behind it."""
    with postgresql() as server, pgbouncer(server, pool_mode) as port:
        server.create_databases(system.names)
        stack = make_stack(**urls(lambda name: f"postgresql://postgres@127.0.0.1:{port}/{name}"))
        stack.start()
        prepare_products(stack)
        with OrderLoad(stack) as load:
            load.until_accepted(1_000)
            server.stop()
            server.start()
            stack.until_ready()
            load.until_accepted(300)
        assert "ended with exit code" not in "\n".join(stack.output.lines)
        prove(stack, load, injected=1)
        stack.kill_up()


@needs_namespaces
def test_machine_of_the_server_dies_and_comes_back(
    make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """While the machine is cut off no service is ready; afterwards orders are accepted again."""
    with Machine(1) as machine, postgresql(host=machine.host, namespace=machine.name) as server:
        server.create_databases(system.names)
        stack = make_stack(**urls(server.url))
        stack.start()
        prepare_products(stack)
        with OrderLoad(stack) as load:
            load.until_accepted(300)
            machine.cut_off()
            begun = time.monotonic()
            while stack.is_ready():
                assert time.monotonic() - begun < NOT_READY_WITHIN_SECONDS
                load.go_on_for(0.2)
            load.go_on_for(CUT_OFF_SECONDS)
            machine.reconnect()
            begun = time.monotonic()
            stack.until_ready()
            load.until_accepted(300)
            healed = time.monotonic() - begun
        prove(stack, load, injected=1, note=f"300 more orders {healed:.0f} s after it came back")
        stack.kill_up()

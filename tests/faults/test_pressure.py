"""Test overload: a held lock, a service that is down, more clients than allowed to wait."""

import os
from collections.abc import Callable

import pytest

from faults.conftest import Prove
from todoku.lab.chaos import OrderLoad, Verdict, jetstream, prepare_products
from todoku.lab.chaos.faults import database_locked, service_away
from todoku.lab.stack import Stack
from todoku.system import system

pytestmark = pytest.mark.faults

LOCKED_SECONDS = float(os.environ.get("FAULTS_LOCKED_SECONDS", "8"))
AWAY_SECONDS = float(os.environ.get("FAULTS_AWAY_SECONDS", "30"))
OVERLOAD_SECONDS = float(os.environ.get("FAULTS_OVERLOAD_SECONDS", "20"))

EVENTS_AN_ORDER = {"COMPLETED": 5, "SHIPMENT_FAILED": 5, "CANCELLED_NO_STOCK": 3}
"""The last one tells how the order ended."""

EVERYTHING = ("orders.>", "inventory.>", "shipping.>")

WAITING_MAX = 500
CUSTOMERS = 3 * WAITING_MAX
GROWTH_BYTES_MAX = 150 * 2**20


@pytest.mark.parametrize("service", system.names)
def test_a_lock_on_the_database_of(service: str, stack: Stack, prove: Prove) -> None:
    """A service waits while another program locks its database, says so, and loses nothing."""
    with OrderLoad(stack, answer_seconds_max=LOCKED_SECONDS + 30) as load:
        load.until_accepted(300)
        with database_locked(stack, service):
            load.go_on_for(LOCKED_SECONDS)
        load.until_accepted(300)
    prove(stack, load, injected=1, note=f"locked for {LOCKED_SECONDS:g} s")


@pytest.mark.parametrize("service", ["inventory", "shipping"])
def test_an_absence_of(service: str, stack: Stack, prove: Prove) -> None:
    """While a service is away the others go on, and send nothing twice: what it missed is there for
    it when it comes back."""
    with OrderLoad(stack, orders_per_second=200) as load:
        load.until_accepted(100)
        with service_away(stack, service):
            load.go_on_for(AWAY_SECONDS)
        load.until_accepted(100)
    verdict = prove(stack, load, injected=1, within_seconds=120 + AWAY_SECONDS)
    sent = messages_an_event(stack, verdict)
    assert 1 <= sent < 1.05, f"{sent:.3f} messages were sent for each event"


def messages_an_event(stack: Stack, verdict: Verdict) -> float:
    """Return how many messages were stored for each published event."""
    sent = sum(jetstream.messages_stored(stack.settings, subjects) for subjects in EVERYTHING)
    said = sum(EVENTS_AN_ORDER[status] * count for status, count in verdict.orders.items())
    return sent / said


def test_three_times_the_customers_that_may_wait(
    make_stack: Callable[..., Stack], prove: Prove
) -> None:
    """Beyond its capacity a service answers 503 with Retry-After, uses no more memory, and ends all
    orders that it accepted."""
    stack = make_stack(mailbox_commands_max=WAITING_MAX)
    stack.start()
    prepare_products(stack)
    with OrderLoad(stack, customers=CUSTOMERS, orders_per_second=None) as load:
        load.until_accepted(1000)
        before = {name: stack.resident_bytes(name) for name in system.names}
        load.go_on_for(OVERLOAD_SECONDS)
        growth = {name: stack.resident_bytes(name) - before[name] for name in system.names}
    assert load.refused
    assert not load.unadvised
    assert max(growth.values()) < GROWTH_BYTES_MAX, growth
    grown = ", ".join(f"{name} {size / 2**20:+.0f} MiB" for name, size in growth.items())
    prove(
        stack,
        load,
        injected=1,
        within_seconds=180,
        note=f"{load.refused} refused with Retry-After; memory: {grown}",
    )


def test_a_broker_that_is_away_for_too_long(make_stack: Callable[..., Stack], prove: Prove) -> None:
    """Orders are accepted while the broker is down, up to the allowed backlog; then 503."""
    backlog = 400
    stack = make_stack(outbox_backlog_max=backlog)
    stack.start()
    prepare_products(stack)
    with OrderLoad(stack) as load:
        load.until_accepted(100)
        stack.freeze("broker")
        taken = len(load.accepted)
        while not load.refused:
            load.go_on_for(0.1)
        taken = len(load.accepted) - taken
        stack.thaw("broker")
        load.until_accepted(100)
    # What had not been sent yet when the broker went away counts too.
    assert taken > backlog / 2
    assert not load.unadvised
    prove(stack, load, injected=1, note=f"{taken} orders taken without a broker, then 503")

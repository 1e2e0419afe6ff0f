"""Tests that no message ends a service, on either database: poison made of every field of every event.

Seeds make the same poison each time, and much of it; hypothesis looks for more, and reduces what it finds
to the smallest message that ends a service.
"""

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select

from todoku.database import Database, migrate
from todoku.engine import EngineConfig, RetryPolicy, Topology
from todoku.engine.testing import MemoryBroker, make_process, run, running, until
from todoku.events import Event
from todoku.lab.simulation.poison import Poison, make_poison
from todoku.settings import Settings
from todoku.system import system

MESSAGES = 400
SECONDS_MAX = 600.0
CONFIG = EngineConfig(
    credit=50,
    retry_policy=RetryPolicy(failing_attempts_max=2, unknown_attempts_max=2, backoff_seconds_max=1),
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=system.names)
def database(request: pytest.FixtureRequest, url: str) -> Iterator[tuple[str, Database]]:
    """The database of a service, empty, with the service's name."""
    with Database.open(url) as database:
        migrate(database, system[request.param].package)
        yield request.param, database


def make_messages(topology: Topology, service: str) -> list[Poison]:
    """Return poison of the events that a service subscribes to; the same for each database."""
    events = events_read_by(service, topology)
    random = Random(service)
    return [make_poison(random, events) for _ in range(MESSAGES)]


def events_read_by(service: str, topology: Topology) -> list[type[Event]]:
    """Return the events that a service subscribes to."""
    return [event for event in topology.registry if service in topology.readers(event)]


def test_no_message_ends_a_service(database: tuple[str, Database]) -> None:
    """Each is parked, or processed where its odd value is allowed."""
    name, opened = database
    poison = make_messages(Topology(system.build(Settings())), name)
    handle(poison, name, opened)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(randoms=st.lists(st.randoms(use_true_random=False), min_size=1, max_size=20))
def test_no_message_that_hypothesis_makes_ends_a_service(
    database: tuple[str, Database], randoms: list[Random]
) -> None:
    """Each choice of the generator is one of hypothesis. Smallest choices make equal ids."""
    name, opened = database
    events = events_read_by(name, Topology(system.build(Settings())))
    made = [make_poison(random, events) for random in randoms]
    with opened.transaction() as connection:
        tables = system[name].build(Settings()).store.tables
        connection.execute(delete(tables.dead_letters.table))
        connection.execute(delete(tables.inbox.table))
    handle(list({each.event_id or each.message.body: each for each in made}.values()), name, opened)


def handle(messages: list[Poison], name: str, opened: Database) -> None:
    """Run a service until it has parked or processed all of these messages."""
    services = {service.name: service for service in system.build(Settings())}
    service, topology = services[name], Topology(services.values())
    tables = service.store.tables
    subjects = {event.subject for event in service.event_handlers}
    poison = [each for each in messages if each.message.subject in subjects]

    def all_handled() -> bool:
        with opened.read() as connection:
            bodies = set(connection.scalars(select(tables.dead_letters.table.c.body)))
            ids = set(connection.scalars(select(tables.inbox.table.c.event_id)))
        return all(
            each.message.body in bodies or (not each.must_be_parked and each.event_id in ids)
            for each in poison
        )

    async def consume() -> None:
        broker = MemoryBroker()
        broker.store([each.message for each in poison])
        async with running(make_process(service, broker, topology, opened, config=CONFIG)):
            await until(all_handled, SECONDS_MAX, every_seconds=1.0)

    run(consume())


def test_poison_has_every_kind_of_odd_value() -> None:
    """What ended services before: a time without a zone, bytes that are not UTF-8, odd UUIDs."""
    topology = Topology(system.build(Settings()))
    events = list(topology.registry)
    random = Random(1)
    bodies = [make_poison(random, events).message.body for _ in range(10_000)]
    wanted = (
        b'"parkedAt":"2030-01-01T00:00:00"',
        b'"addedLater":"\xff\xfe"',
        b'"orderId":"urn:uuid:',
        b'"orderId":"{',
        b'"\\ud800"',
        b'"\\u0000"',
        b"9223372036854775808",
        b'"source":"a b c"',
    )
    assert [each for each in wanted if not any(each in body for body in bodies)] == []
    unseen = [e for e in events if not any(e.__name__.encode() in body for body in bodies)]
    assert unseen == []

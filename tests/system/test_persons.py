"""Everything about a person is exported and erased, at every service, and does not come back."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from engine.virtual import START, run, until
from system.restoring import SERVICES, System
from todoku.contracts import OrderedItem
from todoku.engine import ErasedPerson, ErasePerson, PersonHasOpenWork, UnknownPerson
from todoku.engine.persons import Erasure, ErasureFile, exported, scrubbed
from todoku.engine.stream_positions import MARK_COPY
from todoku.identity.keys import ApiKey
from todoku.orders.placing import PlaceOrder

PERSON: Final = "carol@example.com"
ADDRESS: Final = "1-1 Chiyoda, Tokyo"
ERASE: Final = ErasePerson(id="0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e", person=PERSON, by="staff")


async def place(system: System, number: int, person: str = PERSON) -> str:
    command = PlaceOrder(
        order_id=f"0198c2f0-7b1a-7c3e-9d55-{number:012x}",
        user_id=person,
        items=(OrderedItem(product_id="prod0", quantity=1, price=1),),
        currency="JPY",
        shipping_address=ADDRESS,
    )
    return str((await system.processes["orders"].execute(command)).id)


def anywhere(system: System, *texts: str) -> list[str]:
    """Return the tables that hold any of these texts."""
    found = []
    for name in SERVICES:
        tables = system.rows(name, "SELECT name FROM sqlite_schema WHERE type = 'table'")
        for (table,) in tables:
            rows = system.rows(name, f'SELECT * FROM "{table}"')
            said = "\n".join(
                value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                for row in rows
                for value in row
            )
            found += [f"{name}.{table}" for text in texts if text in said]
    return found


async def erase(system: System) -> ErasedPerson:
    erased: ErasedPerson = await system.processes["orders"].execute(ERASE)
    await until(lambda: all(system.rows(name, "SELECT id FROM erasures") for name in SERVICES))
    await system.settled()
    return erased


async def ended() -> System:
    """Return a system in which orders of the person have ended, and one of somebody else."""
    system = System()
    await system.start()
    await system.stock()
    for number in (1, 2, 3):
        await place(system, number)
    await place(system, 4, "dave")
    await system.settled()
    return system


def test_person_is_erased_at_every_service_and_verify_stays_clean() -> None:
    async def scenario() -> None:
        system = await ended()
        assert anywhere(system, PERSON, ADDRESS)
        erased = await erase(system)
        assert (erased.orders, len(erased.erasures)) == (3, 1)
        assert anywhere(system, PERSON) == []
        left = {place.partition(".")[0] for place in anywhere(system, ADDRESS)}
        assert left <= {"orders", "inventory", "shipping"}  # That of somebody else.
        assert system.rows(
            "orders", "SELECT user_id, shipping_address FROM orders ORDER BY id"
        ) == [
            *[("(erased)", "")] * 3,
            ("dave", ADDRESS),
        ]
        assert (await system.settled()).findings == ()
        with pytest.raises(UnknownPerson):
            await system.processes["orders"].execute(ERASE)
        await system.stop()

    run(scenario())


def test_person_with_an_open_order_is_not_erased() -> None:
    async def scenario() -> None:
        system = System(delay_seconds=3_600)
        await system.start()
        await system.stock()
        order_id = await place(system, 1)
        with pytest.raises(PersonHasOpenWork) as refused:
            await system.processes["orders"].execute(ERASE)
        assert refused.value.orders == (order_id,)
        assert anywhere(system, PERSON)
        await system.stop()

    run(scenario())


@pytest.mark.parametrize("restored", [("orders",), ("shipping",), SERVICES])
def test_recovery_from_the_stream_does_not_bring_a_person_back(restored: tuple[str, ...]) -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.stock()
        other = await place(system, 9, "dave")
        await system.settled()
        before = {name: system.databases[name].serialize() for name in restored}
        await place(system, 1)
        await system.settled()
        await erase(system)
        await system.stop()
        for name, backup in before.items():
            system.restore(name, backup)
            if len(restored) > 1:
                with system.databases[name].transaction() as connection:
                    connection.exec_driver_sql(MARK_COPY)
        await system.start()
        await until(lambda: all(system.rows(name, "SELECT id FROM erasures") for name in restored))
        await until(lambda: all(p.consumer.caught_up for p in system.processes.values()))
        await system.settled()
        assert anywhere(system, PERSON) == []
        orders = "SELECT order_id FROM {} WHERE shipping_address <> ''"
        assert system.rows("inventory", orders.format("reservations")) == [(other,)]
        assert system.rows("shipping", orders.format("shipments")) == [(other,)]
        await system.stop()

    run(scenario())


def test_backup_that_the_stream_knows_nothing_of_is_erased_from_the_file(tmp_path: Path) -> None:
    async def scenario() -> None:
        system = await ended()
        backup = system.databases["orders"].serialize()
        writer = system.processes["orders"].writer
        file = ErasureFile(tmp_path / "erasures" / "orders.ndjson")
        writer.transactions.persons._file = file
        await erase(system)
        assert [each.order_ids for each in file.read()] == [
            tuple(f"0198c2f0-7b1a-7c3e-9d55-{n:012x}" for n in (1, 2, 3))
        ]
        assert PERSON not in file._path.read_text()
        system.restore("orders", backup)
        writer.transactions.database = system.databases["orders"]
        assert [each.invariant for each in system.report().findings if each.invariant == "A2"]
        assert writer.separate_commands.apply_erasure_file() == 1
        assert not [each for each in system.report().findings if each.invariant == "A2"]
        assert system.rows("orders", "SELECT DISTINCT user_id FROM orders ORDER BY 1") == [
            ("(erased)",),
            ("dave",),
        ]
        assert writer.separate_commands.apply_erasure_file() == 0
        await system.stop()

    run(scenario())


def test_export_has_everything_about_a_person_and_nothing_about_others() -> None:
    async def scenario() -> None:
        system = await ended()
        exports: dict[str, Any] = {}
        order_ids = [f"0198c2f0-7b1a-7c3e-9d55-{n:012x}" for n in (1, 2, 3)]
        for service in system.services:
            with system.databases[service.name].read() as connection:
                exports[service.name] = exported(
                    connection, service.persons, service.store.tables, PERSON, order_ids
                )
        await system.stop()
        assert [row["user_id"] for row in exports["orders"]["orders"]] == [PERSON] * 3
        assert len(exports["inventory"]["reservations"]) == 3
        assert {row["shipping_address"] for row in exports["shipping"]["shipments"]} == {ADDRESS}
        text = msgspec.json.encode(exports).decode()
        assert "OrderCreatedEvent" in text
        assert "dave" not in text

    run(scenario())


def test_stored_json_keeps_what_is_not_personal() -> None:
    text = '{"userId":"carol","items":[{"productId":"p1"}],"shippingAddress":"x","by":"staff"}'
    assert msgspec.json.decode(scrubbed(text, lambda name: name == "carol") or "") == {
        "userId": "(erased)",
        "items": [{"productId": "p1"}],
        "shippingAddress": "",
        "by": "staff",
    }
    change = '[{"whole":true,"items":[],"reason":"I moved to X.","by":"carol"}]'
    assert msgspec.json.decode(scrubbed(change, lambda name: name == "carol") or "") == [
        {"whole": True, "items": [], "reason": "", "by": "(erased)"}
    ]


def test_file_survives_a_line_that_was_cut_off(tmp_path: Path) -> None:
    file = ErasureFile(tmp_path / "erasures.ndjson")
    first, second = (
        Erasure(id=str(n), digest="00:00", order_ids=("o",), erased_at=START) for n in (1, 2)
    )
    file.add([first])
    with (tmp_path / "erasures.ndjson").open("ab") as cut:
        cut.write(b'{"id":"half')
    file.add([second])
    assert file.read() == [first, second]


def key_of(number: int, owner: str = PERSON, **more: Any) -> ApiKey:
    key_id, at = f"{number:016x}", START
    digest = "0" * 64
    return ApiKey(id=key_id, digest=digest, owner=owner, scopes=("repair",), created_at=at, **more)


def test_keys_of_a_person_are_exported_and_have_to_be_revoked_before_they_are_erased() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        orders = system.processes["orders"]
        await orders.change_key(key_of(1))
        await orders.change_key(key_of(2, "dave"))
        await system.settled()
        persons = orders.service.persons
        assert persons is not None
        with system.databases["orders"].read() as connection:
            rows = exported(connection, persons, orders.writer.transactions.tables, PERSON, [])[
                "api_keys"
            ]
        assert [(row["id"], "digest" in row) for row in rows] == [(f"{1:016x}", False)]
        with pytest.raises(PersonHasOpenWork, match="valid API keys: 0000000000000001") as refused:
            await orders.execute(ERASE)
        assert refused.value.keys == (f"{1:016x}",)
        await orders.change_key(key_of(1, revoked_at=START))
        await erase(system)
        assert anywhere(system, PERSON) == []
        for name in SERVICES:
            owners = system.rows(name, "SELECT owner FROM api_keys ORDER BY id")
            assert owners == [("(erased)",), ("dave",)], name
        await system.stop()

    run(scenario())


def test_late_news_of_a_key_does_not_bring_its_owner_back_and_a_new_key_keeps_its_own() -> None:
    async def scenario() -> None:
        system = System()
        await system.start()
        await system.processes["orders"].change_key(key_of(1, revoked_at=START))
        await erase(system)
        writer = system.processes["shipping"].writer
        later = START + timedelta(days=1)
        new = msgspec.structs.replace(key_of(2), created_at=later, revoked_at=later)
        with system.databases["shipping"].transaction() as connection:
            late = key_of(3, expires_at=START)
            writer.transactions.tables.api_keys.keep(connection, [late, new])
            writer.transactions.persons.keys_changed(connection)
            kept = writer.transactions.tables.api_keys.read(connection)
        assert [key.owner for key in kept.values()] == ["(erased)", PERSON, "(erased)"]
        await system.stop()

    run(scenario())

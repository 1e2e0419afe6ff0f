"""The AsyncAPI documents are valid, complete, and match the services."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from sqlalchemy import MetaData

from todoku.contracts import EVENTS, decode
from todoku.contracts.examples import EXAMPLES
from todoku.settings import Settings
from todoku.system import system
from todoku.web import Api, Backend, application, asyncapi
from web.edge import RecordingProcess, client, empty_database, run_inline

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "asyncapi-3.0.0.json").read_text())
services = system.build(Settings())


def document(of: str | None = None, **options: Any) -> dict[str, Any]:
    return asyncapi.document(
        services,
        of=of,
        **{"broker_url": "nats://127.0.0.1:4222", "examples": system.examples(), **options},
    )


@pytest.mark.parametrize("of", [None, *system.names])
def test_the_document_follows_the_specification(of: str | None) -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    assert [str(error) for error in validator.iter_errors(document(of))] == []


@pytest.mark.parametrize("of", [None, *system.names])
def test_every_reference_in_it_leads_somewhere(of: str | None) -> None:
    whole = document(of)
    for reference in references(whole):
        found: Any = whole
        for name in reference.removeprefix("#/").split("/"):
            found = found[name]


def references(part: Any) -> Iterator[str]:
    """Every `$ref` in a part of a document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_event_has_an_example_that_is_decoded_and_fits_its_schema() -> None:
    whole = document()
    assert system.examples() == EXAMPLES
    assert EXAMPLES.keys() == set(EVENTS.values())
    for name in EVENTS:
        message = whole["components"]["messages"][name]
        [example] = message["examples"]
        _, event = decode(msgspec.json.encode(example["payload"]))
        assert event == EXAMPLES[EVENTS[name]]
        schema = {**message["payload"], "components": whole["components"]}
        assert jsonschema_rs.is_valid(schema, example["payload"])
        incomplete = {**example["payload"], "data": {}}
        assert not jsonschema_rs.is_valid(schema, incomplete)


def test_document_has_the_operations_of_publishers_and_subscribers() -> None:
    operations = document()["operations"]
    for service in services:
        received = {event.__name__ for event in service.event_handlers}
        sent = {name for name, event in EVENTS.items() if event.publisher == service.name}
        assert {f"{service.name}.receives.{name}" for name in received} | {
            f"{service.name}.sends.{name}" for name in sent
        } == {name for name in operations if name.startswith(f"{service.name}.")}


def test_document_of_a_service_has_only_its_own_operations() -> None:
    described = document("shipping")
    assert set(described["components"]["messages"]) == {
        "StockReservedEvent",
        "ShipmentInitiatedEvent",
        "BookingAttemptFailedEvent",
        "ShipmentCompletedEvent",
        "ShipmentFailedEvent",
        "CancellationRequestedEvent",
        "CancellationConfirmedEvent",
        "CancellationRefusedEvent",
        "HoldRequestedEvent",
        "HoldReleasedEvent",
        "HoldConfirmedEvent",
        "HoldRefusedEvent",
        "ShippingMessageParkedEvent",
        "ShippingMessageClosedEvent",
        "ShippingPausesChangedEvent",
        "ShippingAuditAnchoredEvent",
        "PersonErasedEvent",
        "OrdersApiKeyChangedEvent",
        "Receipt",
    }
    assert {it["tags"][0]["name"] for it in described["operations"].values()} == {"shipping"}


def test_addresses_carry_the_prefix_of_the_installation() -> None:
    channels = document(prefix="shop.test")["channels"]
    assert channels["OrderCreatedEvent"]["address"] == "shop.test.orders.created"
    assert channels["ordersReceipts"]["address"] == "shop.test.receipts.orders.{reader}.{owner}"


def test_each_server_of_a_cluster_is_named_without_password() -> None:
    servers = document(broker_url="nats://user:secret@a:4222,tls://b:4223")["servers"]
    assert [server["host"] for server in servers.values()] == ["a:4222", "b:4223"]


def test_personal_data_is_marked() -> None:
    schemas = document()["components"]["schemas"]
    assert schemas["OrderCreatedEvent"]["properties"]["userId"]["x-personal"]
    assert schemas["StockReservedEvent"]["properties"]["shippingAddress"]["x-personal"]
    assert "x-personal" not in schemas["OrderCreatedEvent"]["properties"]["items"]


@pytest.mark.anyio
async def test_a_service_serves_its_document() -> None:
    described = document("orders")
    with empty_database(MetaData()) as database:
        process = RecordingProcess(lambda command: None)
        backend = Backend(process=process, database=database, run_read=run_inline)
        api = Api(title="", description="", operations=[])
        async with client(application(api, backend, events=described)) as browser:
            answer = await browser.get("/asyncapi.json")
    assert answer.status_code == 200
    assert answer.json() == described

"""AsyncAPI 3.0 document of the events, generated from the contracts and the services.

The contract of an event names its publisher; the services' event handlers name its consumers.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from inspect import getdoc
from typing import Any, Final

import msgspec

import todoku
from todoku.broker.port import OWNER_HEADER
from todoku.engine import ReceiptMessage, Service, Topology
from todoku.events import CONTENT_TYPE, Envelope, Event, seal
from todoku.redaction import redact

Examples = Mapping[type[Event], Event]

EXAMPLE_TIME: Final = datetime(2026, 1, 5, 9, 30, tzinfo=UTC)
RECEIPT: Final = "Receipt"
SCHEMA: Final = "#/components/schemas/{name}"

ABOUT: Final = """\
Events that the services of Todoku publish on NATS JetStream: CloudEvents 1.0 in structured JSON
mode. Delivery is at least once, in any order. An event's `id` names the fact, so that the same fact
published twice has the same id: process each id once. New fields may be added: ignore unknown
fields. Fields marked `x-personal` identify a person.

A service that consumes an event sends its publisher a receipt over core NATS once the event is in
its own database. Until then the publisher keeps the event in its outbox. Other subscribers, with
consumers of their own, send no receipts.

Where the setting `partitions` is above 1, the subject of an event is followed by a dot and a number
that depends on the key: read `<address>.*` beside `<address>`."""


def document(
    services: Sequence[Service],
    *,
    of: str | None = None,
    prefix: str = "",
    broker_url: str,
    examples: Examples | None = None,
) -> dict[str, Any]:
    """Return the document of the events that one service publishes and consumes; `of=None`: all.

    `prefix` is put before every subject. Only hosts and ports of `broker_url` are shown. `examples` has
    an event of each type to show.
    """
    topology = Topology(services)
    described = [service for service in services if of in (None, service.name)]
    events = [event for event in events_of(services) if _concerns(event, described)]
    publishers = dict.fromkeys(event.publisher for event in events if topology.readers(event))
    dotted = f"{prefix}." if prefix else ""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Todoku {of}: events" if of else "Todoku: events",
            "version": todoku.__version__,
            "description": ABOUT,
            "license": {
                "name": "Apache-2.0",
                "url": "https://www.apache.org/licenses/LICENSE-2.0",
            },
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": dict(_servers(broker_url)),
        "channels": {
            **{event.__name__: _channel(event, topology, dotted) for event in events},
            **{_receipts(name): _receipts_channel(name, dotted) for name in publishers},
        },
        "operations": {
            name: operation
            for service in described
            for name, operation in _operations(service, events, topology)
        },
        "components": {
            "messages": {
                **{event.__name__: _message(event, examples or {}) for event in events},
                RECEIPT: _receipt_message(),
            },
            "schemas": _schemas(events),
        },
    }


def events_of(services: Sequence[Service]) -> Sequence[type[Event]]:
    """Return the events of a system: those of each service in turn, then those of others."""
    published = (event for service in services for event in service.publishes)
    return tuple(dict.fromkeys((*published, *Topology(services).registry)))


def _concerns(event: type[Event], services: Iterable[Service]) -> bool:
    return any(event.publisher == it.name or event in it.event_handlers for it in services)


def _servers(broker_url: str) -> Iterable[tuple[str, dict[str, str]]]:
    for n, url in enumerate(redact(broker_url).split(","), start=1):
        host = url.partition("://")[2].rpartition("@")[2].partition("/")[0]
        yield f"broker{n}", {"host": host, "protocol": "nats"}


def _channel(event: type[Event], topology: Topology, dotted: str) -> dict[str, Any]:
    readers = topology.readers(event)
    return {
        "address": dotted + event.subject,
        "description": f"Published by {event.publisher}. "
        + (
            f"Consumed by {', '.join(readers)}." if readers else "Consumed by none of the services."
        ),
        "messages": {event.__name__: _reference("components", "messages", event.__name__)},
    }


def _receipts(publisher: str) -> str:
    return f"{publisher}Receipts"


def _receipts_channel(publisher: str, dotted: str) -> dict[str, Any]:
    return {
        "address": f"{dotted}receipts.{publisher}.{{reader}}.{{owner}}",
        "description": f"Receipts for events of {publisher} that consumers have committed. "
        "Core NATS without a stream: a lost receipt causes one redelivery.",
        "parameters": {
            "reader": {"description": "The service that has the events."},
            "owner": {
                "description": f"The process that published them: the header {OWNER_HEADER} of an event. "
                f"If there is none, the address is {dotted}receipts.{publisher}."
            },
        },
        "messages": {RECEIPT: _reference("components", "messages", RECEIPT)},
    }


def _operations(
    service: Service, events: Iterable[type[Event]], topology: Topology
) -> Iterable[tuple[str, dict[str, Any]]]:
    for event in events:
        if event.publisher == service.name:
            yield (
                f"{service.name}.sends.{event.__name__}",
                _operation("send", service.name, event, bool(topology.readers(event))),
            )
        if event in service.event_handlers:
            yield (
                f"{service.name}.receives.{event.__name__}",
                _operation("receive", service.name, event, True),
            )


def _operation(action: str, service: str, event: type[Event], receipted: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": action,
        "channel": _reference("channels", event.__name__),
        "summary": _summary(event),
        "tags": [{"name": service}],
        "messages": [_reference("channels", event.__name__, "messages", event.__name__)],
    }
    if receipted:
        channel = _receipts(event.publisher)
        operation["reply"] = {
            "channel": _reference("channels", channel),
            "messages": [_reference("channels", channel, "messages", RECEIPT)],
        }
    return operation


def _message(event: type[Event], examples: Examples) -> dict[str, Any]:
    name = event.__name__
    message: dict[str, Any] = {
        "name": name,
        "title": name,
        "summary": _summary(event),
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "properties": {
                OWNER_HEADER: {
                    "type": "string",
                    "description": "The process that published the event, for the address of receipts.",
                }
            },
        },
        "payload": {
            "allOf": [
                {"$ref": SCHEMA.format(name=Envelope.__name__)},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": name},
                        "source": {"const": event.publisher},
                        "data": {"$ref": SCHEMA.format(name=name)},
                    },
                },
            ]
        },
    }
    if event in examples:
        sealed = seal(examples[event], EXAMPLE_TIME)
        payload = msgspec.json.decode(msgspec.json.encode(sealed))
        message["examples"] = [{"name": name, "payload": payload}]
    return message


def _receipt_message() -> dict[str, Any]:
    return {
        "name": RECEIPT,
        "title": RECEIPT,
        "summary": _summary(ReceiptMessage),
        "contentType": "application/json",
        "payload": {"$ref": SCHEMA.format(name=ReceiptMessage.__name__)},
    }


def _schemas(events: Iterable[type[Event]]) -> dict[str, Any]:
    structs: list[type[msgspec.Struct]] = [Envelope, ReceiptMessage, *events]
    _, schemas = msgspec.json.schema_components(structs, ref_template=SCHEMA)
    for struct in structs:
        for field in msgspec.inspect.type_info(struct).fields:  # type: ignore[attr-defined]
            if (getattr(field.type, "extra", None) or {}).get("personal"):
                schemas[struct.__name__]["properties"][field.encode_name]["x-personal"] = True
    schemas[Envelope.__name__]["properties"]["specversion"] = {"const": "1.0"}
    return schemas


def _summary(described: type[Any]) -> str:
    """Return the first paragraph of a docstring."""
    return " ".join((getdoc(described) or "").partition("\n\n")[0].split())


def _reference(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}

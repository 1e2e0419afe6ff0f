"""Tools that read."""

from contextlib import suppress
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from todoku.cli.agents.tool import Arguments, Cursor, Limit, OrderId, ServiceName, Services, Tool
from todoku.cli.client import segment
from todoku.cli.errors import CommandFailed
from todoku.cli.evidence import gather
from todoku.cli.explanation import explain
from todoku.documentation import documentation, find, search

LOOK_SECONDS_MAX: Final = 3.0
SECTIONS_MAX: Final = 15
PAGE_CHARACTERS: Final = 16_000
EVENTS_MAX: Final = 50


class Nothing(Arguments, frozen=True, kw_only=True):
    """No arguments."""


class Orders(Arguments, frozen=True, kw_only=True):
    status: Annotated[
        str | None,
        Meta(description="Only this status: PENDING, AWAITING_SHIPMENT, CANCELLING, COMPLETED, …"),
    ] = None
    user_id: Annotated[str | None, Meta(description="Only orders of this user.")] = None
    product_id: Annotated[str | None, Meta(description="Only orders of this product.")] = None
    only: Annotated[
        Literal["parked", "held", "overdue"] | None,
        Meta(description="Only orders that a dead letter stops, that are held, or overdue."),
    ] = None
    limit: Limit = 20
    cursor: Cursor = None


class OneOrder(Arguments, frozen=True, kw_only=True):
    order_id: OrderId


class Shipments(Arguments, frozen=True, kw_only=True):
    order_id: Annotated[str | None, Meta(description="Only the shipment of this order.")] = None
    limit: Limit = 20
    cursor: Cursor = None


class Products(Arguments, frozen=True, kw_only=True):
    product_id: Annotated[
        str | None, Meta(description="Only this product, with the last changes of its stock.")
    ] = None
    limit: Limit = 20
    cursor: Cursor = None


class DeadLetters(Arguments, frozen=True, kw_only=True):
    service: ServiceName
    state: Literal["PARKED", "RETRIED", "EDITED", "DISCARDED"] = "PARKED"
    group: Annotated[str | None, Meta(description="Only those with the same error.")] = None
    order_id: Annotated[str | None, Meta(description="Only those about this order.")] = None
    limit: Limit = 20
    cursor: Cursor = None


class OneDeadLetter(Arguments, frozen=True, kw_only=True):
    service: ServiceName
    letter_id: Annotated[str, Meta(description="The id of a dead letter.")]


class AuditLog(Arguments, frozen=True, kw_only=True):
    service: ServiceName
    actor: Annotated[str | None, Meta(description="Only requests of this actor.")] = None
    subject: Annotated[str | None, Meta(description="Only requests about this id.")] = None
    limit: Limit = 20
    cursor: Cursor = None


class Words(Arguments, frozen=True, kw_only=True):
    words: Annotated[str, Meta(min_length=1, description="All of these are in the section.")]


class DocsPage(Arguments, frozen=True, kw_only=True):
    page: Annotated[
        str | None, Meta(description="A page, such as how-to/dead-letters; left out: their list.")
    ] = None
    offset: Annotated[int, Meta(ge=0, description="Where to go on, in characters.")] = 0


def system_status(services: Services, _: Nothing) -> Any:
    """Return the state of every service: ready or not, dead letters, pauses, version."""
    return {name: _service_status(services, name) for name in services.names}


def _service_status(services: Services, name: str) -> dict[str, Any]:
    service = services.client(name, LOOK_SECONDS_MAX)
    try:
        service.get("/readyz")
    except CommandFailed as failure:
        return {"ready": False, "problem": str(failure)}
    found: dict[str, Any] = {"ready": True}
    for what, path in (
        ("deadLetters", "/dead-letters/groups"),
        ("pauses", "/pauses?state=PAUSED"),
        ("runsWith", "/system"),
    ):
        try:
            found[what] = service.read(service.get(path), object)
        except CommandFailed as failure:
            found[what] = {"problem": str(failure)}
    with suppress(KeyError):
        del found["runsWith"]["settings"]
    return found


def list_orders(services: Services, wanted: Orders) -> Any:
    """Return a page of orders."""
    query = {
        "status": wanted.status,
        "userId": wanted.user_id,
        "productId": wanted.product_id,
        "limit": wanted.limit,
        "cursor": wanted.cursor,
    }
    if wanted.only is not None:
        query[wanted.only] = "true"
    return services.get("orders", "/orders", query)


def get_order(services: Services, wanted: OneOrder) -> Any:
    """Return an order with the newest of its events."""
    path = f"/orders/{segment(wanted.order_id)}"
    events = services.get("orders", f"{path}/events")["items"]
    shown: dict[str, Any] = {"order": services.get("orders", path), "events": events[-EVENTS_MAX:]}
    if len(events) > EVENTS_MAX:
        shown["earlierEvents"] = len(events) - EVENTS_MAX
    return shown


def explain_order(services: Services, wanted: OneOrder) -> Any:
    """Return what an order waits for, the causes, and what to do."""
    if not services.are_here:
        order = services.get("orders", f"/orders/{segment(wanted.order_id)}")
        return {
            "status": order["status"],
            "waitingFor": order.get("waitingFor"),
            "note": "Some services run elsewhere, so only the order was asked: look at system_status.",
        }
    evidence = gather(
        wanted.order_id, services.settings, up=None, with_database=not services.is_remote
    )
    return msgspec.to_builtins(explain(evidence))


def list_shipments(services: Services, wanted: Shipments) -> Any:
    """Return a page of shipments."""
    query = {"orderId": wanted.order_id, "limit": wanted.limit, "cursor": wanted.cursor}
    return services.get("shipping", "/shipments", query)


def list_products(services: Services, wanted: Products) -> Any:
    """Return a page of products, or one with the newest entries of its ledger."""
    page = {"limit": wanted.limit, "cursor": wanted.cursor}
    if wanted.product_id is None:
        return services.get("inventory", "/products", page)
    path = f"/products/{segment(wanted.product_id)}"
    return {
        "product": services.get("inventory", path),
        "ledger": services.get("inventory", f"{path}/ledger", page),
    }


def list_dead_letters(services: Services, wanted: DeadLetters) -> Any:
    """Return a page of dead letters, and their groups."""
    query = {
        "state": wanted.state,
        "group": wanted.group,
        "orderId": wanted.order_id,
        "limit": wanted.limit,
        "cursor": wanted.cursor,
    }
    return {
        "groups": services.get(wanted.service, "/dead-letters/groups")["items"],
        "letters": services.get(wanted.service, "/dead-letters", query),
    }


def get_dead_letter(services: Services, wanted: OneDeadLetter) -> Any:
    """Return a dead letter with its message and attempts."""
    return services.get(wanted.service, f"/dead-letters/{segment(wanted.letter_id)}")


def list_audit_log(services: Services, wanted: AuditLog) -> Any:
    """Return a page of the audit log of a service."""
    query = {
        "actor": wanted.actor,
        "subject": wanted.subject,
        "limit": wanted.limit,
        "cursor": wanted.cursor,
    }
    return services.get(wanted.service, "/audit", query)


def search_docs(_: Services, wanted: Words) -> Any:
    """Return the sections of the documentation that contain all words."""
    found = search(documentation(), wanted.words)
    return {
        "found": len(found),
        "sections": [passage._asdict() for passage in found[:SECTIONS_MAX]],
    }


def read_docs(_: Services, wanted: DocsPage) -> Any:
    """Return a part of a page of the documentation, or the list of all pages."""
    pages = documentation()
    if wanted.page is None:
        return {"pages": {page.name: page.title for page in pages.values()}}
    match find(pages, wanted.page):
        case [page]:
            rest = page.text[wanted.offset :]
            more = len(rest) > PAGE_CHARACTERS
            return {
                "page": page.name,
                "text": rest[:PAGE_CHARACTERS],
                "nextOffset": wanted.offset + PAGE_CHARACTERS if more else None,
            }
        case []:
            raise CommandFailed(f"there is no page {wanted.page!r}: leave out page for their list.")
        case several:
            names = ", ".join(each.name for each in several)
            raise CommandFailed(f"several pages are called so: {names}.")


READING: Final = (
    Tool(
        name="system_status",
        description="Whether each service is ready, its dead letters by error, what is paused, its version."
        " Begin here when something is wrong.",
        arguments=Nothing,
        reads=system_status,
    ),
    Tool(
        name="list_orders",
        description="List orders, the newest first, by status, user, product, or only those that are parked,"
        " held or overdue.",
        arguments=Orders,
        reads=list_orders,
    ),
    Tool(
        name="get_order",
        description="Show an order: its items, status, holds, what it waits for, and its events.",
        arguments=OneOrder,
        reads=get_order,
    ),
    Tool(
        name="explain_order",
        description="Say why an order has not ended: what it waits for, since when, the last error, the"
        " causes found at the services and the broker, and what can be done.",
        arguments=OneOrder,
        reads=explain_order,
    ),
    Tool(
        name="list_shipments",
        description="List shipments, the newest first, or the one of an order: attempts and errors of the"
        " carrier.",
        arguments=Shipments,
        reads=list_shipments,
    ),
    Tool(
        name="list_products",
        description="List products with their stock, or show one with what changed its stock.",
        arguments=Products,
        reads=list_products,
    ),
    Tool(
        name="list_dead_letters",
        description="List the messages that a service could not process, and their groups by error.",
        arguments=DeadLetters,
        reads=list_dead_letters,
    ),
    Tool(
        name="get_dead_letter",
        description="Show a dead letter: the message, each attempt, and the error.",
        arguments=OneDeadLetter,
        reads=get_dead_letter,
    ),
    Tool(
        name="list_audit_log",
        description="List who has asked a service for what, and what came of it, the latest first.",
        arguments=AuditLog,
        reads=list_audit_log,
    ),
    Tool(
        name="search_docs",
        description="Search the documentation of Todoku for sections that contain all words.",
        arguments=Words,
        reads=search_docs,
    ),
    Tool(
        name="read_docs",
        description="Read a page of the documentation of Todoku as Markdown, or list all pages.",
        arguments=DocsPage,
        reads=read_docs,
    ),
)
"""Tools that change nothing."""

"""HTTP operations on the stock of a product: adjust it, and list what changed it and what is reserved."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import Connection
from uuid_utils import uuid7

from todoku.contracts import MAX_SAFE_INTEGER
from todoku.identity import scopes
from todoku.inventory.domain import (
    CODES,
    CorrectStock,
    Restock,
    SetLowStockThreshold,
    Stock,
    StockInUse,
    TooMuchStock,
    address_of,
)
from todoku.inventory.problems import STOCK_IN_USE, TOO_MUCH_STOCK, UNKNOWN_PRODUCT
from todoku.inventory.stock_lists import (
    Found,
    LedgerEntryView,
    Part,
    ReservationView,
    list_ledger,
    list_reservations,
)
from todoku.inventory.store import find_product
from todoku.inventory.views import ETAG, ProductView, product_id_of, product_reply, unknown_product
from todoku.web import Backend, Body, Call, Operation, Reply, SuccessResponse
from todoku.web.fields import CODE_PATTERN, Note, ProductId, Quantity, StockQuantity
from todoku.web.operations import Refusals
from todoku.web.paging import PageQuery, from_cursor, next_page, page_response
from todoku.web.problems import DATABASE_UNAVAILABLE

STOCK_REFUSALS: Final[Refusals] = {TooMuchStock: TOO_MUCH_STOCK, StockInUse: STOCK_IN_USE}

Code = Annotated[
    str,
    Meta(
        pattern=CODE_PATTERN,
        description=f"The reason as a code: {', '.join(CODES)}, or one of your own.",
        examples=["DAMAGE"],
    ),
]
Difference = Annotated[
    int,
    Meta(
        ge=-MAX_SAFE_INTEGER,
        le=MAX_SAFE_INTEGER,
        description="How many pieces there are more, or fewer if it is negative. 0 enters a count that"
        " found nothing wrong.",
        examples=[-2],
    ),
]


class NewStock(Body, frozen=True, kw_only=True):
    """Pieces to add to the stock."""

    quantity: Quantity
    code: Code = "DELIVERY"
    reason: Note | None = None


class Correction(Body, frozen=True, kw_only=True):
    """By how much the stock on hand differs from what there is."""

    quantity: Difference
    code: Code = "COUNT"
    reason: Note | None = None


class Threshold(Body, frozen=True, kw_only=True):
    """At how many available pieces a product is low; null for never."""

    threshold: StockQuantity | None


class LedgerPage(msgspec.Struct, frozen=True, rename="camel"):
    """Entries of the ledger, the newest first; `nextCursor` is null on the last page."""

    items: list[LedgerEntryView]
    next_cursor: str | None


class LedgerQuery(PageQuery, frozen=True, kw_only=True):
    """Page of the ledger of a product."""


class ReservationPage(msgspec.Struct, frozen=True, rename="camel"):
    """Reservations, the newest order first; `nextCursor` is null on the last page."""

    items: list[ReservationView]
    next_cursor: str | None


class ReservationQuery(PageQuery, frozen=True, kw_only=True):
    """Page of the reservations of a product."""


def stock_operations(backend: Backend) -> Sequence[Operation]:
    """Return the operations on the stock of a product."""
    routes = StockRoutes(backend)
    product_id = {"productId": ProductId}
    adjusted = SuccessResponse(
        status=200,
        description="The product with its new stock.",
        content=ProductView,
        headers=ETAG,
    )
    return [
        Operation(
            id="restockProduct",
            method="POST",
            scope=scopes.STOCK_WRITE,
            path="/products/{productId}/restock",
            path_parameters=product_id,
            summary="Add stock of a product",
            handle=routes.restock,
            body=NewStock,
            examples={"a delivery": {"quantity": 10, "reason": "Delivery 4711"}},
            responses=[adjusted],
            problems=[UNKNOWN_PRODUCT, TOO_MUCH_STOCK],
        ),
        Operation(
            id="correctStock",
            method="POST",
            scope=scopes.STOCK_WRITE,
            path="/products/{productId}/correct",
            path_parameters=product_id,
            summary="Correct the stock of a product",
            description=ABOUT_CORRECTING,
            handle=routes.correct,
            body=Correction,
            examples={"two are broken": {"quantity": -2, "code": "DAMAGE", "reason": "Fell down."}},
            responses=[adjusted],
            problems=[UNKNOWN_PRODUCT, TOO_MUCH_STOCK, STOCK_IN_USE],
        ),
        Operation(
            id="setLowStockThreshold",
            method="PUT",
            scope=scopes.STOCK_WRITE,
            path="/products/{productId}/low-stock-threshold",
            path_parameters=product_id,
            summary="Set at how many available pieces a product is low",
            description=ABOUT_LOW_STOCK,
            handle=routes.set_threshold,
            body=Threshold,
            examples={"five pieces": {"threshold": 5}},
            responses=[adjusted],
            problems=[UNKNOWN_PRODUCT],
        ),
        Operation(
            id="listLedger",
            method="GET",
            scope=scopes.PRODUCTS_READ,
            path="/products/{productId}/ledger",
            path_parameters=product_id,
            summary="List what changed the stock of a product, the newest first",
            description=ABOUT_LISTS,
            handle=routes.ledger,
            query=LedgerQuery,
            responses=[page_response("A page of the ledger.", LedgerPage)],
            problems=[UNKNOWN_PRODUCT, DATABASE_UNAVAILABLE],
        ),
        Operation(
            id="listReservations",
            method="GET",
            scope=scopes.PRODUCTS_READ,
            path="/products/{productId}/reservations",
            path_parameters=product_id,
            summary="List the reservations of a product, the newest order first",
            description=ABOUT_RESERVATIONS,
            handle=routes.reservations,
            query=ReservationQuery,
            responses=[page_response("A page of reservations.", ReservationPage)],
            problems=[UNKNOWN_PRODUCT, DATABASE_UNAVAILABLE],
        ),
    ]


class StockRoutes:
    """Handlers: parse → command → reply."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def restock(self, call: Call) -> Reply:
        return await self._adjust(call, Restock)

    async def correct(self, call: Call) -> Reply:
        return await self._adjust(call, CorrectStock)

    async def _adjust(self, call: Call, kind: type[Restock] | type[CorrectStock]) -> Reply:
        product_id = product_id_of(call)
        wanted: NewStock | Correction = call.body
        stock: Stock = await self._backend.execute(
            kind(
                product_id=product_id,
                adjustment_id=str(uuid7()),
                quantity=wanted.quantity,
                code=wanted.code,
                note=wanted.reason,
                by=call.context.actor,
            ),
            context=call.context,
            find_out=f"See GET {address_of(product_id)}/ledger before you repeat the request.",
        )
        return product_reply(stock.products[product_id])

    async def set_threshold(self, call: Call) -> Reply:
        product_id = product_id_of(call)
        wanted: Threshold = call.body
        stock: Stock = await self._backend.execute(
            SetLowStockThreshold(
                product_id=product_id, change_id=str(uuid7()), threshold=wanted.threshold
            ),
            context=call.context,
            find_out=f"See GET {address_of(product_id)}; the request can safely be repeated.",
        )
        return product_reply(stock.products[product_id])

    async def ledger(self, call: Call) -> Reply:
        after = from_cursor(call.query, _is_number)
        part = Part(call.query.limit, None if after is None else int(after))
        return await self._list(call, "ledger", LedgerPage, list_ledger, part)

    async def reservations(self, call: Call) -> Reply:
        part = Part(call.query.limit, from_cursor(call.query, str.isprintable))
        return await self._list(call, "reservations", ReservationPage, list_reservations, part)

    async def _list(
        self,
        call: Call,
        name: str,
        page: Callable[[list[Any], str | None], Any],
        find: Callable[[Connection, str, Part], Found],
        part: Part,
    ) -> Reply:
        product_id = product_id_of(call)
        found = await self._backend.read(_found, find, product_id, part)
        if found is None:
            raise unknown_product(product_id)
        path = f"{address_of(product_id)}/{name}"
        cursor, headers = next_page(path, call.query, found.next_key)
        return Reply(200, page(list(found.items), cursor), headers)


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) < 19


def _found(
    connection: Connection,
    find: Callable[[Connection, str, Part], Found],
    product_id: str,
    part: Part,
) -> Found | None:
    """Return a page of a product's list, None if there is no such product."""
    if find_product(connection, product_id) is None:
        return None
    return find(connection, product_id, part)


ABOUT_CORRECTING = """\
A correction says by how many pieces the stock differs from what there is, so that it is right whatever is
reserved or shipped meanwhile. Pieces that are reserved for orders cannot be taken out: cancel orders first.
Each request is one more correction: send an `Idempotency-Key`, and repeat it with the same key only."""

ABOUT_LOW_STOCK = """\
When as many pieces as that are available, or fewer, a `StockLowEvent` is published: once, until more are
available again. If so few are available already, it is published now."""

ABOUT_LISTS = """\
The work for a page is bounded: if the product is seldom sold, a page has fewer than `limit` items, perhaps
none, although there are more; follow `nextCursor` until it is null."""

ABOUT_RESERVATIONS = f"""\
An order that waits for stock has nothing reserved, so it is not in the list: GET /orders?status=PENDING with
the `productId`, at the orders service, has it. {ABOUT_LISTS}"""
